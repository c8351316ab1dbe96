"""Decide which destinations an alert goes to, and with what words."""
