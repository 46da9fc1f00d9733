"""Getting the data back: with the bucket and the key alone, or in a drill that proves that it works."""
