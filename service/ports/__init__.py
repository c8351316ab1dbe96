"""The ports of storage for the pipeline and the relay, and the plain data that they exchange."""
