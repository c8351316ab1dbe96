"""A first look at deltaloom: a server, a worker, a relay and eight streams. `make demo` runs it."""
