"""What the pipeline and the relay need of storage, and the plain data that goes to and fro."""
