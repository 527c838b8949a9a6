"""What tests share: servers, checkpoints, jobs that run in child processes."""
