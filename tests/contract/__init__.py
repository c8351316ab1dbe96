"""Tests of our contract against what others ship."""
