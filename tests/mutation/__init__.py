"""Test the program that changes the code and runs the tests."""
