"""Run the demonstration: `python -m demo`, or `make demo`."""

import sys
from typing import Annotated

import typer

from embedded import EmbeddedServerError
from service.cli.encoding import escape_unknown_characters
from service.cli.help_text import examples, prose
from service.cli.output import note


def run(
    pace: Annotated[
        float, typer.Option(min=0.1, max=100.0, help="Factor by which the streams run faster than natural.")
    ] = 1.0,
    tap: Annotated[
        bool, typer.Option("--tap", help="Let the three translated streams pass through `deltaloom tap`.")
    ] = False,
    console: Annotated[
        bool, typer.Option("--console", help="Open the console in a browser, and keep it for two minutes.")
    ] = False,
) -> None:
    """Show deltaloom at work: a server, a worker, a relay and eleven streams, in about 15 seconds.

    The demo starts an embedded server, a worker and a relay of its own, and publishes eleven streams: two
    refusals, long reasoning, a summary that runs out of tokens, reasoning with an answer, a stream that is
    cut off, one with a broken event, and one whose producer repeats itself. Three more are translated from
    the bytes of Chat Completions, Anthropic and Gemini: a refusal, a refusal that another model hides, and
    an answer that a filter stops. The alerts reach a webhook in this process. Everything is removed at the
    end.

    The exit code is 0 if everything came out as it should; otherwise it is 1, and the differences are
    printed.
    """
    from demo.rehearsed_run import run_demo  # noqa: PLC0415 - imported late, so that --help is fast

    try:
        code = run_demo(pace, through_tap=tap, shows_console=console)
    except EmbeddedServerError as error:
        note(str(error), style="red")
        code = 1
    sys.exit(code)


app = typer.Typer(add_completion=False, rich_markup_mode="rich")
app.command(
    help=prose(run),
    epilog=examples(
        "python -m demo", "python -m demo --pace 2", "python -m demo --tap", "python -m demo --console"
    ),
)(run)

if __name__ == "__main__":
    escape_unknown_characters()
    app()
