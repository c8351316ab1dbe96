"""What the handlers share: identities, effects, the set that a text is, and when it is finished.

Pure: nothing here reads a clock, an environment or a socket.
"""
