"""What the user needs: use cases with their floors, languages, the workload."""
