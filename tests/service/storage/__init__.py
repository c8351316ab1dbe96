"""Test `service.storage`."""
