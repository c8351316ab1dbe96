"""`deltaloom alerts rates`: compare present refusal rates with earlier ones."""

from __future__ import annotations

import asyncio
import json as json_format
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.help_text import examples

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.table import Table

    from deltaloom.messages import ModerationAlert, RefusalRate
    from service.rates.proportions import Count
    from service.rates.spikes import Rates, Subject

EXAMPLES = examples("deltaloom alerts rates", "deltaloom alerts rates --json | jq 'select(.spike != null)'")


def run(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Show the shares of responses that were refused or blocked, in the window and before it.

    The table lists models, providers and tenants. A response counts once, when it ends: as refused if the
    model declined, as blocked if a filter, a policy or a guardrail stopped it.
    """
    asyncio.run(_show(as_json=json))


async def _show(*, as_json: bool) -> None:
    from service.cli.command_errors import CommandError
    from service.cli.connect import connect, read_settings
    from service.cli.output import console, note, print_table, write_json
    from service.rates.spikes import thresholds_of
    from service.settings import variable
    from service.storage.redis_rates import RedisRates

    settings = read_settings()
    if not settings.spike_window:
        raise CommandError(f"refusals are not counted: {variable('spike_window')}=0")
    async with connect(settings) as client:
        storage = RedisRates(client, settings, looks_first=False)
        rates = await storage.counted(await storage.now_ms())
        spikes = await storage.spikes()
    subjects = sorted({*rates.subjects, *spikes}, key=lambda subject: _order(rates, subject))
    if as_json:
        for subject in subjects:
            write_json(_as_json(rates.rate(subject), spikes.get(subject)))
    elif not subjects:
        note(
            "nothing was counted yet: a response counts when it is over, if its producer gives a response_id "
            "and its model, provider or tenant is known"
        )
    else:
        print_table(console(), table_of(rates, subjects, spikes, thresholds_of(settings).responses))


def _order(rates: Rates, subject: Subject) -> tuple[str, float, str]:
    """Return the sort key: models, then providers, then tenants, each by descending share of refusals."""
    return subject.scope, -rates.rate(subject).share, subject.name


def _as_json(rate: RefusalRate, spike: ModerationAlert | None) -> str:
    began = None if spike is None else {"id": spike.id, "since": spike.model_dump(mode="json")["raised_at"]}
    return json_format.dumps({**rate.model_dump(mode="json"), "spike": began}, ensure_ascii=False)


def table_of(
    rates: Rates, subjects: Iterable[Subject], spikes: Mapping[Subject, ModerationAlert], enough: int
) -> Table:
    """Return the table to print; it fits 80 columns if no name has more than 22 characters.

    Args:
        rates: counts of each subject.
        subjects: subjects to list, in order; at least one.
        spikes: the alert of each spike that has not ended.
        enough: responses below which a subject is marked `few` instead of scored.
    """
    from rich.table import Table
    from rich.text import Text

    from service.cli.entries import clock_time
    from service.rates.spikes import baseline_of, window_of
    from service.visible import visible

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    since = clock_time(rates.rate(next(iter(subjects))).since)
    table.add_column(f"since {since}\n", overflow="fold")
    for name in ("\nof", "\nrefused", "\nblocked", "before\nof", "\nrefused", "\nblocked", "\nscore"):
        table.add_column(name, justify="right", no_wrap=True)
    scope = None
    for subject in subjects:
        if subject.scope != scope:
            scope = subject.scope
            table.add_row(Text(f"by {visible(scope)}", "dim"))
        spike = spikes.get(subject)
        rate = rates.rate(subject, since_spike=None if spike is None else spike.rate)
        few = min(rate.responses, rate.baseline_responses) < enough
        lasts = f"\n  spike since {clock_time(spike.raised_at)}" if spike else ""
        table.add_row(
            Text.assemble(visible(rate.name), (lasts, "bold red")),
            *_cells(window_of(rate)),
            *_cells(baseline_of(rate)),
            Text("few", "dim") if few else Text(f"{rate.score:.1f}", "bold red" if spike else ""),
        )
    return table


def _cells(count: Count) -> tuple[str, str, str]:
    return f"{count.responses:,}", f"{count.share:.1%}", f"{count.blocked_share:.1%}"
