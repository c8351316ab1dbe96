"""Entry point of the command `deltaloom` and of `python -m service`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; a health check imports nothing that it does not need."""
    if sys.argv[1:] == ["health"]:
        from service.observability.heartbeat_file import health  # noqa: PLC0415 - only this command needs it

        healthy, line = health(os.environ)
        sys.stdout.write(f"{line}\n")
        raise SystemExit(0 if healthy else 1)
    from service import cli  # noqa: PLC0415 - takes a tenth of a second

    cli.main()


if __name__ == "__main__":
    main()
