"""The command `deltaloom`: one file a sub-command."""

import typer

from service.cli import worker

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _main() -> None:
    """Rebuild refusals and reasoning from streamed model events on Redis Streams."""


app.command("worker")(worker.run)


def main() -> None:
    """Run the command line."""
    app()
