"""Test the check at the end of the demo: it must find each kind of fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from demo.progress import Arrived, Progress
from demo.verification import problems
from tests.demo.perfect import entry_id, letter, perfect

if TYPE_CHECKING:
    from collections.abc import Callable


def _changed_text(progress: Progress, **changes: Any) -> None:
    last = progress.texts[-1]
    progress.texts[-1] = Arrived(last.entry_id, last.message.model_copy(update=changes))


def _changed_alert(progress: Progress, number: int, **changes: Any) -> None:
    alert = progress.alerts[number]
    progress.alerts[number] = Arrived(alert.entry_id, alert.message.model_copy(update=changes))


def _drop_alert(progress: Progress, alert_type: str) -> None:
    progress.alerts[:] = [each for each in progress.alerts if each.message.type != alert_type]


def _changed_ring(progress: Progress, **changes: Any) -> None:
    last = progress.rings[-1]
    progress.rings[-1] = last._replace(message=last.message.model_copy(update=changes))


def test_perfect_run_has_no_problems() -> None:
    """Report no problems of a correct run."""
    assert problems(perfect()) == []


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda run: run.texts.pop(), "echo-valley: output_text 0/0: its text came 0 times, not once"),
        (lambda run: run.texts.append(run.texts[-1]), "its text came 2 times, not once"),
        (lambda run: _changed_text(run, text="You were right"), "its text is wrong from character 4: 'were"),
        (lambda run: _changed_text(run, text=""), "its text is wrong from character 0"),
        (lambda run: _changed_text(run, integrity="repaired"), "its integrity is 'repaired', not 'verified'"),
        (lambda run: _changed_text(run, status="abandoned"), "its status is 'abandoned', not 'completed'"),
        (lambda run: _changed_text(run, duplicate_count=5), "its duplicate_count is 5, not 6"),
        (lambda run: _changed_text(run, delta_count=1), "its delta_count is 1, not 53"),
        (lambda run: _changed_text(run, tenant=None), "its tenant is None, not 'echo-valley'"),
        (lambda run: _changed_text(run, model="other"), "its model is 'other', not 'warp-5'"),
        (lambda run: _changed_text(run, content_index=7), "an unexpected text came: output_text 0/7"),
        (
            lambda run: _changed_text(run, response_id="resp_x"),
            "an unexpected text came: output_text 0/0 of resp_x",
        ),
        (lambda run: run.alerts.pop(), "its alerts are ['opened'], not one opened and then one finished"),
        (lambda run: run.alerts.reverse(), "its alerts are ['finished', 'opened']"),
        (lambda run: run.alerts.append(run.alerts[0]), "its alerts are ['opened', 'finished', 'opened']"),
        (lambda run: _changed_alert(run, 0, text="Sure"), "its alert opened with 'Sure'"),
        (lambda run: _changed_alert(run, 0, text=""), "its alert opened with ''"),
        (lambda run: _changed_alert(run, 1, text="I'm"), "in its finished alert, its text is wrong"),
        (
            lambda run: _changed_alert(run, 0, model=None),
            "in its deltaloom.refusal.opened, its model is None",
        ),
        (lambda run: _changed_alert(run, 0, kind="reasoning"), "an unexpected alert came: reasoning 0/0"),
        (lambda run: run.rings.pop(), "the webhook rang opened for refusal 0/0 of resp_"),
        (lambda run: run.rings.clear(), "the webhook rang never for refusal 0/0 of resp_"),
        (lambda run: run.rings.reverse(), "the webhook rang finished and then opened for refusal 0/0"),
        (lambda run: run.rings.append(run.rings[0]), "the webhook rang opened and then finished and then op"),
        (lambda run: _changed_ring(run, id="other"), "the webhook rang opened and then finished"),
        (lambda run: _changed_ring(run, text="Sure"), "what the webhook got is not what was raised"),
        (
            lambda run: _changed_ring(run, response_id="resp_x"),
            "finished for refusal 0/0 of resp_x, not never",
        ),
        (lambda run: run.refused.append("No matching signature"), "refused something: No matching signature"),
        (
            lambda run: _drop_alert(run, "deltaloom.response.fallback"),
            "lighthouse: the alerts about its end are [], not ['deltaloom.response.fallback']",
        ),
        (lambda run: run.letters.clear(), "post-office: its broken event is not among the dead letters"),
        (
            lambda run: run.letters.append(Arrived(entry_id(7), letter(entry_id(7)))),
            "(an entry that was in order): an unexpected dead letter came: malformed_json",
        ),
        (lambda run: run.letters.append(run.letters[0]), "post-office: an unexpected dead letter came"),
    ],
)
def test_spoiled_run_is_reported(spoil: Callable[[Progress], Any], problem: str) -> None:
    """Report the problem of a spoiled run."""
    run = perfect()
    spoil(run)
    assert any(problem in each for each in problems(run)), problems(run)


def test_complete_only_when_everything_has_come() -> None:
    """Report a run as complete only after all outputs have come. Otherwise the last would seem missing."""
    run = perfect()
    assert run.complete
    run.rings.pop()
    assert not run.complete
    run = perfect()
    run.texts.pop()
    assert not run.complete
