"""Build what a release publishes: `make release`."""
