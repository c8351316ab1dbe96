"""The FastStream layer: broker, batch subscriber, and the format of messages on the stream."""
