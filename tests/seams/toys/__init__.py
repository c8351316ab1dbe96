"""A handler and a destination that do not belong to deltaloom; the tests add them as a stranger would."""
