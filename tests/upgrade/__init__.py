"""Test a release and this tree together on one server."""
