"""`deltaloom demo`: the newcomer's first minute: a server, a worker, eight streams, and what they give."""
