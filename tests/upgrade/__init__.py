"""A release and this tree side by side on one server."""
