"""What fixtures are made of."""
