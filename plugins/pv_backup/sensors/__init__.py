"""What waits for something outside a run, without holding a worker."""
