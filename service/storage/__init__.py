"""The sets, in Redis: each script is one atomic step, called through one typed method."""
