"""FastStream: the broker, the batch subscriber, and what its messages look like on the stream."""
