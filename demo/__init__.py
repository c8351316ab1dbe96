"""A first look at deltaloom: a server, a worker, a relay and eleven streams. `make demo` runs it."""
