"""Test which destination gets which part of an alert, and the reason if it gets none."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaloom.messages import HEARTBEAT_PREFIX, KnownAlertType
from service.alerts.deciding.config import MAX_BYTES
from service.alerts.deciding.explanation import explain
from service.alerts.deciding.findings import ConfigError
from service.alerts.deciding.policy import NotSent, load
from service.alerts.deciding.privacy import sha256_of
from service.alerts.delivery import Notification
from service.alerts.heartbeat_alerts import HEARTBEAT_TEXT
from service.alerts.phases import PHASES
from tests.service.alerts.made import NOW, alert, contradicted, policy, spike, stopped

if TYPE_CHECKING:
    from pathlib import Path

    from deltaloom import ModerationAlert
    from service.alerts.deciding.policy import Decision

TWO = '[destinations.a]\ntype = "log"\n[destinations.b]\ntype = "log"\n'


def sent(decision: Decision) -> Notification:
    """Return the decision as a notification."""
    assert isinstance(decision, Notification), decision
    return decision


def test_every_type_has_a_phase() -> None:
    """Assign a phase to each alert type. Otherwise a new type would end the relay."""
    assert set(PHASES) == set(get_args(KnownAlertType))


def test_without_routes_all_destinations_get_alerts_without_text() -> None:
    """Send alerts to all destinations, without their texts, if no routes are configured."""
    of = alert("I can't talk of suicide.")
    decisions = policy(TWO).decide(of, NOW)
    assert list(decisions) == ["a", "b"]
    assert sent(decisions["a"]) == Notification(
        id=of.id,
        alert=of.model_copy(update={"text": ""}),
        severity="critical",
        category="self-harm",
        rule="self-harm",
        route="everything",
        privacy="none",
        text_sha256=sha256_of("I can't talk of suicide."),
        dedup_key="resp_1/0/1/refusal",
    )


WANTS_HEARTBEATS = '[destinations.a]\ntype = "log"\nheartbeat = true\n'


def test_heartbeat_is_sent_with_its_text() -> None:
    """Send only the finishing alert of a heartbeat, as a test, to a destination that wants heartbeats."""
    of = {"text": HEARTBEAT_TEXT, "response_id": f"{HEARTBEAT_PREFIX}1"}
    decisions = policy(WANTS_HEARTBEATS + '[destinations.b]\ntype = "log"\n')
    message = sent(decisions.decide_for("a", alert(phase="refusal.finished", **of), NOW))
    assert (message.alert.text, message.category, message.test) == (HEARTBEAT_TEXT, "heartbeat", True)
    assert isinstance(decisions.decide_for("a", alert(**of), NOW), NotSent)
    assert isinstance(decisions.decide_for("b", alert(**of), NOW), NotSent)


def test_refusal_with_the_response_id_of_a_heartbeat_is_none() -> None:
    """Send any other text as the file says. Otherwise a producer could evade its routes and its privacy."""
    of = alert("I can't talk of suicide.", response_id=f"{HEARTBEAT_PREFIX}1")
    message = sent(policy(WANTS_HEARTBEATS).decide_for("a", of, NOW))
    assert (message.alert.text, message.category, message.test) == ("", "self-harm", False)


ROUTES = f"""{TWO}
[[routes]]
name = "grave"
match = {{ severity = "critical" }}
to = "a"
text = "full"
[[routes]]
match = {{ tenant = "acme" }}
to = ["a", "b"]
text = {{ excerpt = 4 }}
"""


def test_all_routes_that_fit_deliver_and_the_first_decides_the_text() -> None:
    """Notify the destinations of all matching routes once; the first route decides the text."""
    decisions = policy(ROUTES).decide(alert("I can't talk of suicide."), NOW)
    assert [(sent(each).route, sent(each).alert.text) for each in decisions.values()] == [
        ("grave", "I can't talk of suicide."),
        ("route 2", "I ca…"),
    ]
    mild = policy(ROUTES).decide(alert("No way."), NOW)
    assert [(sent(each).route, sent(each).privacy) for each in mild.values()] == [("route 2", "excerpt")] * 2
    unrouted = policy(ROUTES).decide(alert("No way.", tenant="other"), NOW)
    assert set(unrouted.values()) == {NotSent("unrouted", "no route to it fits")}


MUTES = f"""{TWO}
[[mutes]]
match = {{ tenant = "acme" }}
to = "a"
until = 2026-05-04T12:00:01Z
why = "load test"
[[mutes]]
match = {{ tenant = "acme" }}
until = 2026-05-04T12:00:00Z
why = "over"
"""


def test_mutes_end() -> None:
    """End a mute at its time, and apply it to its own destinations only."""
    decisions = policy(MUTES).decide(alert(), NOW)
    assert decisions["a"] == NotSent("muted", "load test (until 2026-05-04T12:00:01+00:00)")
    assert isinstance(decisions["b"], Notification)
    assert isinstance(policy(MUTES).decide(alert(), NOW + timedelta(seconds=1))["a"], Notification)
    assert isinstance(policy(MUTES).decide(alert(tenant="other"), NOW)["a"], Notification)


PLAIN, GRAVE = "I can't help with that.", "I can't talk of suicide."
FIRST_WORDS_ARE_MILD = """
[[rules]]
name = "mild"
match = { phase = "opened" }
pattern = "."
severity = "info"
"""


@pytest.mark.parametrize(
    ("toml", "of", "resolves"),
    [
        ("", alert(), False),
        ("", alert(PLAIN, "refusal.finished", status="completed"), True),
        ("", alert(GRAVE, "refusal.finished"), False),
        (FIRST_WORDS_ARE_MILD, alert(PLAIN, "refusal.finished"), True),
        ('[[routes]]\nto = "a"\nmatch = { phase = "finished" }', alert(PLAIN, "refusal.finished"), False),
        ('[[routes]]\nto = "a"\nmatch = { severity = "critical" }', alert(GRAVE, "refusal.finished"), False),
        ('[[routes]]\nto = "a"\nmatch = { tenant = "acme" }', alert(PLAIN, "refusal.finished"), True),
        (
            '[[mutes]]\nmatch = { phase = "opened" }\nuntil = 2027-01-01T00:00:00Z\nwhy = "x"',
            alert(PLAIN, "refusal.finished"),
            False,
        ),
        ("", spike(), False),
        ("", spike("refusal.spike.ended"), True),
        ('[[routes]]\nto = "a"\nmatch = { phase = "spike_ended" }', spike("refusal.spike.ended"), False),
        ("", stopped("blocked", "safety"), False),
        ("", contradicted(), False),
        ("", alert(PLAIN, "refusal.finished", severity="mild"), True),
        ("", alert(PLAIN, "prompt.finished"), False),
    ],
)
def test_resolving_alerts(toml: str, of: ModerationAlert, *, resolves: bool) -> None:
    """End an alert only if the opened one was sent there and, without its text, was at least as severe."""
    assert sent(policy(f"{TWO}{toml}").decide(of, NOW)["a"]).resolves is resolves


def test_an_unknown_type_goes_by_its_severity() -> None:
    """Route unknown types by severity, without their text unless a route allows it."""
    routes = """
    [[routes]]
    match = { phase = ["finished", "spike"], severity = "critical" }
    to = "a"
    [[routes]]
    match = { phase = "finished", severity = "info" }
    to = "b"
    text = "full"
    [[mutes]]
    match = { phase = ["opened", "finished"] }
    until = 2027-01-01T00:00:00Z
    why = "nobody listens"
    """
    grave = alert("I can't talk of suicide.", "prompt.flagged", severity="critical")
    decisions = policy(f"{TWO}{routes}").decide(grave, NOW)
    assert (sent(decisions["a"]).severity, sent(decisions["a"]).alert.text) == ("critical", "")
    assert sent(decisions["a"]).category == "other"
    assert decisions["b"] == NotSent("unrouted", "no route to it fits")
    odd = alert("Why?", "prompt.flagged", severity="severe")
    result = sent(policy(TWO).decide(odd, NOW)["a"])
    assert (result.severity, result.alert.type) == ("severe", "deltaloom.prompt.flagged")


JUDGED_TWICE = """
[[rules]]
name = "beginning"
match = {{ phase = "opened" }}
severity = "{}"

[[rules]]
name = "end"
match = {{ phase = "finished" }}
severity = "{}"
"""


@pytest.mark.parametrize(
    ("began", "ended", "resolves"),
    [
        ("info", "info", True),
        ("info", "warning", False),
        ("info", "critical", False),
        ("warning", "info", True),
        ("warning", "warning", True),
        ("warning", "critical", False),
        ("critical", "info", True),
        ("critical", "warning", True),
        ("critical", "critical", True),
    ],
)
def test_an_end_that_is_worse_than_its_beginning_resolves_nothing(
    began: str, ended: str, *, resolves: bool
) -> None:
    """Leave an incident open if the finished alert is more severe. Otherwise it would be closed unseen."""
    toml = TWO + JUDGED_TWICE.format(began, ended)
    end = alert(PLAIN, "refusal.finished", status="completed")
    assert sent(policy(toml).decide(end, NOW)["a"]).resolves is resolves


def test_groups() -> None:
    """Group a finished alert with its opened alert, and keep all others apart."""
    pairs = (
        (alert(), alert(PLAIN, "refusal.finished")),
        (spike(), spike("refusal.spike.ended")),
    )
    everything = (
        *(each for pair in pairs for each in pair),
        alert(content_index=2),
        alert(output_index=1),
        alert(response_id=None),
        alert(response_id="resp_2"),
        spike(name="other"),
        stopped("filtered", "content_filter"),
        stopped("blocked", "safety"),
        stopped("refused", "refusal"),
        contradicted(),
        contradicted(kind="reasoning"),
        alert(phase="prompt.flagged"),
        alert(phase="prompt.held"),
        stopped("held", "x"),
        stopped("held", "x", response_id=None, id="held_2"),
        stopped("held", "x", response_id=None, id="held_3"),
        spike("refusal.dip"),
    )
    groups = [sent(policy(TWO).decide(each, NOW)["a"]).dedup_key for each in everything]
    assert groups[0] == groups[1] == "resp_1/0/1/refusal"
    assert groups[2] == groups[3] == "refusal-rate/model/gpt-x"
    assert len(set(groups)) == len(groups) - len(pairs)


@given(st.text(max_size=80), st.sampled_from(["refusal.opened", "refusal.finished"]), st.booleans())
def test_explained_as_decided(text: str, phase: str, muted: bool) -> None:  # noqa: FBT001 - hypothesis
    """Explain the same decisions that are made."""
    own_policy = policy(f"{ROUTES}{MUTES.removeprefix(TWO) if muted else ''}")
    of = alert(text, phase)
    explanation = explain(own_policy, of, NOW)
    assert explanation.decisions == own_policy.decide(of, NOW)
    assert explanation.decisions == {
        name: own_policy.decide_for(name, of, NOW) for name in own_policy.destinations
    }
    fitting = [route for route in explanation.routes if route.mismatch is None]
    for name, decision in explanation.decisions.items():
        if isinstance(decision, Notification):
            assert decision.route == next(route.name for route in fitting if name in route.to)
            assert decision.severity == explanation.judged.severity
        elif decision.reason == "unrouted":
            assert all(name not in route.to for route in fitting)


def test_explained() -> None:
    """Name the rule, the matching pattern and the mismatch of each route."""
    result = explain(policy(ROUTES), alert(GRAVE), NOW).to_json()
    assert (result["rule"], result["because"]) == (
        "self-harm",
        r"the rule self-harm fits: text matches (?i)\bsuicid|\bself[- ]?(?:harm|injur)",
    )
    assert result["rules"] == [
        {
            "name": "child-safety",
            "fits": False,
            "why_not": "text matches none of the 3 patterns",
        },
        {"name": "self-harm", "fits": True},
    ]
    assert [route["fits"] for route in result["routes"]] == [True, True]
    assert result["destinations"]["b"]["text"] == "I ca…"
    mild = explain(policy(ROUTES), alert("Nope.", tenant=None), NOW).to_json()
    assert mild["because"] == "no rule fits: the severity is the worker's"
    assert [route["why_not"] for route in mild["routes"]] == [
        "severity is warning, not critical",
        "tenant is not known, not acme",
    ]
    assert mild["destinations"]["a"] == {"sent": False, "reason": "unrouted", "why": "no route to it fits"}
    by_match = explain(policy(TWO), stopped("filtered", "content_filter"), NOW)
    assert by_match.because == "the rule content-filter fits: the alert meets all its criteria"
    by_text = policy(f'{TWO}\n[[rules]]\nname = "own"\nmatch = {{ text = "ca[nr]" }}\nseverity = "info"\n')
    assert explain(by_text, alert("I can't."), NOW).because == "the rule own fits: text matches ca[nr]"


def test_load(tmp_path: Path) -> None:
    """Load a valid file with its secrets, and refuse one with missing secrets."""
    path = tmp_path / "alerts.toml"
    path.write_text('[destinations.a]\ntype = "slack"\nurl_env = "SLACK"\n')
    loaded = load(path, {"SLACK": "https://hooks.example/x"})
    assert list(loaded.destinations) == list(loaded.policy.destinations) == ["a"]
    with pytest.raises(ConfigError, match=r"alerts\.toml:3: destinations\.a\.url_env: .*SLACK is not set"):
        load(path, {})


def test_unreadable(tmp_path: Path) -> None:
    """Report a missing, binary or oversized file, instead of a traceback."""
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file or directory$"):
        load(tmp_path / "none.toml", {})
    path = tmp_path / "alerts.toml"
    path.write_bytes(b"\n# \xff")
    with pytest.raises(ConfigError, match=r"alerts\.toml:2: is not UTF-8"):
        load(path, {})
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match=r"alerts\.toml: has more than 1048576 bytes; is it the right file"):
        load(path, {})
