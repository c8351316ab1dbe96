"""What is shipped: wheels, names and locks."""
