"""`deltaloom alerts test`: send a test alert to a destination."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from service.alerts.phases import Phase
from service.cli.alerts_file import DEFAULT, ConfigFile
from service.cli.help_text import examples

if TYPE_CHECKING:
    from service.alerts.deciding.policy import LoadedPolicy
    from service.alerts.delivery import Notification, Outcome

EXAMPLES = examples("deltaloom alerts test on-call", "deltaloom alerts test on-call --phase blocked")

_TEXT = "I'm sorry, but I can't help with that."


def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the destination.", show_default=False)],
    phase: Annotated[Phase, typer.Option(help="Phase of the test alert.")] = "opened",
    config: ConfigFile = DEFAULT,
) -> None:
    """Send a marked test alert to a destination, and print its answer. No server is needed."""
    from service import logs
    from service.alerts.deciding.policy import load
    from service.cli.connect import read_settings

    logs.configure(read_settings())  # a setting decides whether log destinations may log texts
    asyncio.run(_test(name, phase, load(config, os.environ)))


async def _test(name: str, phase: Phase, loaded: LoadedPolicy) -> None:
    from service.alerts.delivery import Verdict
    from service.alerts.destinations.registry import create_destination
    from service.cli.command_errors import CommandError
    from service.cli.output import console
    from service.visible import visible

    if name not in loaded.destinations:
        known = ", ".join(loaded.destinations) or "none"
        raise CommandError(f"there is no destination {name} in the file; there is {known}")
    destination = create_destination(name, loaded.destinations[name], os.environ)
    try:
        outcome: Outcome = await destination.deliver(notification(datetime.now(UTC), phase))
    finally:
        await destination.aclose()
    if outcome.verdict is not Verdict.DELIVERED:
        raise CommandError(f"{name} did not take it ({outcome.verdict.value}): {visible(outcome.answer)}")
    console().print(f"{name} took it: {visible(outcome.answer)}")


def notification(now: datetime, phase: Phase = "opened") -> Notification:
    """Return a test notification of a phase; its text is our own, so it is included in full."""
    import uuid

    from deltaloom.messages import ModerationAlert
    from service.alerts.deciding.privacy import sha256_of
    from service.alerts.delivery import Notification
    from service.alerts.phases import PHASES, dedup_key_of

    name = f"test_{uuid.uuid4().hex}"
    fields = {
        "type": next(kind_of for kind_of, each in PHASES.items() if each == phase),
        "id": name,
        "severity": "info",
        "text": "",
        "model": "test-model",
        "tenant": "test-tenant",
        "provider": "test-provider",
        "raised_at": now,
    }
    alert = ModerationAlert.model_validate({**fields, **_fields(phase, name, now)})
    return Notification(
        id=name,
        alert=alert,
        severity="info",
        category="test",
        rule=None,
        route="test",
        privacy="full",
        text_sha256=sha256_of(alert.text),
        dedup_key=dedup_key_of(alert),
        resolves=phase == "spike_ended",
        test=True,
    )


def _fields(phase: Phase, name: str, now: datetime) -> dict[str, object]:
    """Return the fields that are specific to alerts of a phase."""
    if phase in ("spike", "spike_ended"):
        return {"tenant": None, "provider": None, "rate": _rate(now)}
    response = {"response_id": name, "reference": name}
    if phase in ("refused", "filtered", "blocked"):
        reason_class = "refusal" if phase == "refused" else "policy"
        status = "failed" if phase == "blocked" else "incomplete"
        return {**response, "status": status, "reason": "test-reason", "reason_class": reason_class}
    if phase == "fallback":
        change = {"from_model": "test-model", "to_model": "other-model", "trigger": "refusal"}
        return {**response, "status": "completed", "fallback": change}
    ended = {"status": "completed", "integrity": "verified"} if phase == "finished" else {}
    part = {"kind": "refusal", "output_index": 0, "content_index": 0, "text": _TEXT}
    return {**response, **part, **ended}


def _rate(now: datetime) -> dict[str, object]:
    from datetime import timedelta

    window = {"since": now - timedelta(minutes=5), "until": now, "responses": 200, "refused": 60}
    before = {
        "baseline_since": now - timedelta(days=1),
        "baseline_responses": 20_000,
        "baseline_refused": 200,
    }
    return {"by": "model", "name": "test-model", "score": 31.42, **window, **before}
