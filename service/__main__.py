"""Entry point of `python -m service`, which is the command `deltaloom`."""

from service.cli import main

if __name__ == "__main__":
    main()
