"""`make demo`: back up a small realistic cluster for real, and show what came of it."""
