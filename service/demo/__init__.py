"""`deltaloom demo`: a first look, with a server, a worker, a relay and eight streams."""
