"""What a candidate will take and do: bytes by component, rates, layers on a GPU."""
