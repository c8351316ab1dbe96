"""The storage in Redis: one typed method for each script, and one atomic step in each script."""
