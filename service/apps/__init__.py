"""The programs: composition roots of the worker, its partitions and the relay."""
