"""The figures of a run under steady load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.results import percentile, shown

if TYPE_CHECKING:
    from bench.competitors import Competitor
    from bench.live import Live
    from bench.stage import Stage

NAME = "paced"
A_SECOND = 50
"""Number of events of a response in a second, as of a real one."""
KEPT = "pace kept, %"
READ = "read, %"
WORKER_CPU, SERVER_CPU = "worker CPU, %", "server CPU, %"
SERVER_BEYOND = "server CPU beyond the publisher, %"
COMMANDS = "commands an event"
TEXT_P50, TEXT_P99 = "text p50, ms", "text p99, ms"
ALERT_P50, ALERT_P99 = "alert p50, ms", "alert p99, ms"
TEXTS, ALERTS = "texts", "alerts"


def note(stage: Stage, case: str, competitor: Competitor, ran: Live, alone: Live | None = None) -> None:
    """Record the figures of a run.

    If it is void, only the pace that the publisher kept counts. If the competitor fell behind, its delays
    count, but not its costs.

    Args:
        stage: run of the bench.
        case: name of the case.
        competitor: competitor that ran.
        ran: its measurements.
        alone: measurements of the publisher alone, at the same rate; None if there are none.
    """
    beyond = None if alone is None or alone.void else server_cpu(ran) - server_cpu(alone)
    costs = {
        WORKER_CPU: 100 * ran.worker_cpu / ran.seconds,
        SERVER_CPU: server_cpu(ran),
        **({} if alone is None else {SERVER_BEYOND: beyond}),
        COMMANDS: ran.commands / max(1, ran.events),
    }
    delays = {TEXT_P50: milliseconds(ran.texts, 0.5), TEXT_P99: milliseconds(ran.texts, 0.99)}
    samples = {TEXTS: len(ran.texts)}
    if competitor.rebuilds:
        delays |= {ALERT_P50: milliseconds(ran.alerts, 0.5), ALERT_P99: milliseconds(ran.alerts, 0.99)}
        samples |= {ALERTS: len(ran.alerts)}
    figures: dict[str, float | None] = {
        **(dict.fromkeys(costs) if ran.behind else costs),
        **delays,
        **samples,
        READ: 100 * ran.read,
    }
    for what, value in figures.items():
        stage.add(case, competitor.name, what, None if ran.void else value)
    stage.add(case, competitor.name, KEPT, 100 * ran.pace)
    if not ran.void:
        described = (f"{what} {shown(value)}" for what, value in figures.items() if value is not None)
        stage.progress.say(f"{NAME}, {case}: {competitor.name}, {'; '.join(described)}")


def note_alone(stage: Stage, case: str, who: str, alone: Live) -> None:
    """Record the figures of a publisher without a competitor."""
    stage.add(case, who, SERVER_CPU, None if alone.void else server_cpu(alone))
    stage.add(case, who, KEPT, 100 * alone.pace)


def server_cpu(ran: Live) -> float:
    """Return the processor time of the server, in % of a core."""
    return 100 * ran.server_cpu / ran.seconds


def milliseconds(delays: list[float], share: float) -> float | None:
    """Return a percentile of delays in ms; None without delays."""
    return 1000 * percentile(delays, share) if delays else None
