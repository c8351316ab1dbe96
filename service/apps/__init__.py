"""Composition roots of the programs: the worker, one of its partitions, and the relay."""
