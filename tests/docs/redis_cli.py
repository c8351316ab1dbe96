"""Send a command with redis-py and print the reply, as a substitute for redis-cli.

Usage: redis_cli.py -e -u URL COMMAND [ARGUMENT…]
"""

from __future__ import annotations

import sys

from redis import Redis

if __name__ == "__main__":
    _, *options, url = sys.argv[:4]
    command = sys.argv[4:]
    if options != ["-e", "-u"]:
        sys.exit(f"the stand-in for redis-cli knows -e -u only, not {options}")
    with Redis.from_url(url, decode_responses=True) as client:
        sys.stdout.write(f"{client.execute_command(*command)}\n")
