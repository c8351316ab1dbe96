"""Test the contract against the packages of others."""
