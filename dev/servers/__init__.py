"""One module per server of the stack; each starts and stops the real program and knows nothing of the others."""
