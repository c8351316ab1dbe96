"""Select the destinations of an alert and the content that each one receives."""
