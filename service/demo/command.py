"""`deltaloom demo`: see it work."""

from typing import Annotated

import typer


def run(
    pace: Annotated[
        float, typer.Option(min=0.1, max=100.0, help="How many times faster than natural the streams run.")
    ] = 1.0,
) -> None:
    """See it work: a server, a worker, a relay and eight streams, in about 15 seconds.

    Starts an embedded server, a worker and a relay of its own, and publishes eight streams: two refusals,
    long reasoning, a summary that runs out of tokens, reasoning with an answer, a stream that is cut off,
    one with a broken event, and one whose producer repeats itself. The alerts ring a webhook in this
    process. Nothing is left behind.

    Ends with 0 if everything came out as it should; otherwise it says what did not, and ends with 1.
    """
    from service.demo.run import run_demo  # noqa: PLC0415 - imported only now, so that --help answers at once

    raise typer.Exit(run_demo(pace))
