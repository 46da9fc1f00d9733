"""What waits in the triggerer, and ends by itself."""
