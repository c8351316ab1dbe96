"""`deltaloom demo`: the newcomer's first minute: a server, a worker, a relay and eight streams."""
