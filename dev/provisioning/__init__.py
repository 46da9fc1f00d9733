"""What the servers need before a backup can run; each function adds only what is missing."""
