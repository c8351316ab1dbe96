"""`python -m service` is the command `deltaloom`."""

from service.cli import main

if __name__ == "__main__":
    main()
