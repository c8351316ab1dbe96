"""The error for bodies that cannot be read any further."""


class BodyError(ValueError):
    """A body that cannot be read from here on; the message says why, without quoting the body."""
