"""Run the demonstration: `python -m demo`, or `make demo`."""

import sys
from typing import Annotated

import typer

from embedded import EmbeddedServerError
from service.cli.help_text import examples, prose
from service.cli.output import escape_unknown_characters, note


def run(
    pace: Annotated[
        float, typer.Option(min=0.1, max=100.0, help="Factor by which the streams run faster than natural.")
    ] = 1.0,
) -> None:
    """Show deltaloom at work: a server, a worker, a relay and eight streams, in about 15 seconds.

    The demo starts an embedded server, a worker and a relay of its own, and publishes eight streams: two
    refusals, long reasoning, a summary that runs out of tokens, reasoning with an answer, a stream that is
    cut off, one with a broken event, and one whose producer repeats itself. The alerts reach a webhook in
    this process. Everything is removed at the end.

    The exit code is 0 if everything came out as it should; otherwise it is 1, and the differences are
    printed.
    """
    from demo.rehearsed_run import run_demo  # noqa: PLC0415 - imported late, so that --help is fast

    try:
        code = run_demo(pace)
    except EmbeddedServerError as error:
        note(str(error), style="red")
        code = 1
    sys.exit(code)


app = typer.Typer(add_completion=False, rich_markup_mode="rich")
app.command(help=prose(run), epilog=examples("python -m demo", "python -m demo --pace 2"))(run)

if __name__ == "__main__":
    escape_unknown_characters()
    app()
