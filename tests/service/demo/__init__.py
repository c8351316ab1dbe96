"""Test `service.demo`."""
