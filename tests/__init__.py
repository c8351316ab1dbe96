"""Tests of deltaloom, in folders that mirror the code.

Tests of whole processes on a server are in `integration`.
"""
