"""Types of destinations, one module each."""
