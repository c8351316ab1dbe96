"""The pure core of the handlers: identities, effects, the set of a text's fragments, and the closing rules.

The core does no I/O: no module reads a clock, the environment or a socket.
"""
