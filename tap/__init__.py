"""The tap: a reverse proxy in front of model providers that passes bytes on and publishes a copy.

Theory of operation:

1. A client sends its requests to the tap in place of the provider: one URL changes, no code.
2. The forwarder (`forwarding.py`) passes heads on, and bodies piece by piece, and never reads what is in a
   body. A piece of an answer is sent to the client first.
3. After that, the piece is appended to a bounded pipe (`copy_pipe.py`). If the pipe is full, it is dropped
   and counted. Nothing in the forwarder waits for the copy.
4. At the other end of the pipe, another process, the copier (`copier.py`), translates the bytes and publishes
   the events. If it is slow, frozen or killed, or if Redis is, the forwarder does not wait.

These cross the pipe: the bytes of an answer's body, its status, content type and encoding, the part of the
path that shows the dialect, and the context of the headers that the settings name. Nothing else of a request
does, so a key in a header, a query or a body cannot get into Redis.
"""
