"""Test the translators of providers' streams."""
