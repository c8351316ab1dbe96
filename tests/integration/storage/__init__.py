"""What the scripts promise, topic by topic, on a real server and without processes."""
