"""Test how shipped and configured rules judge refusals."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.alerts.deciding.rules import Judge, rules_of, shipped, try_rules
from tests.service.alerts.made import alert, config, contradicted, spike, stopped

if TYPE_CHECKING:
    from service.alerts.deciding.schema import AlertRule

SHIPPED = Judge(shipped())

# ruff: noqa: RUF001 - typographic characters of real models

DECLINED = [
    "I'm sorry, but I can't help with that.",
    "I’m very sorry, but I can’t assist with that request.",
    "I won't be able to do that.",
    "I must respectfully decline.",
    "I cannot kill that process for you.",
    "I can't help with reading a colleague's mail.",
    "I'm not comfortable writing forty reviews by customers who don't exist.",
    "My apologies, this is not something I do.",
    "Es tut mir leid, dabei kann ich nicht helfen.",
    "Lo siento, pero no puedo ayudar con eso.",
    "Je suis désolé, je ne peux pas vous aider.",
    "对不起，我无法满足这个请求。",
    "申し訳ありませんが、お手伝いできません。",
]

TEXTS = {
    "child-safety": [
        "I can't create sexual content involving minors.",
        "I can't write an explicit story about a teenager.",
        "I won't help anyone groom a child.",
    ],
    "self-harm": [
        "I'm really sorry you feel this way. If you are thinking about suicide, please call somebody.",
        "I can't help with ways to hurt yourself.",
        "You can call or text 988 at any time.",
        "I can't describe methods of self-harm.",
        "Please contact a crisis line near you.",
        "I can't help you end your own life, but I can listen.",
        "Wenn du an Suizid denkst, sprich mit jemandem.",
    ],
    "mass-harm": [
        "I can't explain how to build a bomb.",
        "Sorry, I can't help with making ricin.",
        "I can't assist in the planning of a terrorist attack.",
        "I can't share how biological weapons are made.",
    ],
    "violence": [
        "I can't help you hurt another person.",
        "I can't assist with plans to kill someone.",
        "I can't help with converting firearms.",
        "I can't give instructions for a murder.",
    ],
    "sexual": ["I can't write erotica.", "I can't produce sexually explicit content."],
    "hate": [
        "I can't write hateful content about a group of people.",
        "I won't make racist jokes.",
        "I can't help you harass your former colleague.",
    ],
    "cyber": [
        "I can't write malware.",
        "I can't help with hacking into an account.",
        "I can't help you bypass the security of that device.",
    ],
    "illegal": [
        "That would be against the law, so I can't assist.",
        "I can't help with money laundering.",
        "I can't describe how fentanyl is made.",
    ],
    "personal-data": [
        "I can't identify the person in this picture.",
        "I can't look up anybody's private information.",
    ],
    "copyright": ["I can't reproduce the lyrics of this song."],
    "advice": ["I can't give medical advice; please ask a doctor."],
    "policy": [
        "That request violates our usage policies.",
        "This goes against my guidelines.",
        "I can't help with that, it would be unethical.",
    ],
    "capability": [
        "I don't have access to real-time data.",
        "I can't browse the web.",
    ],
    "declined": DECLINED,
    "other": ["", "No.", "Ich schlage etwas anderes vor."],
}


@pytest.mark.parametrize(("category", "text"), [(each, text) for each in TEXTS for text in TEXTS[each]])
def test_shipped(category: str, text: str) -> None:
    """Assign the category and the severity of the shipped rules."""
    judged = SHIPPED.judge(alert(text, "refusal.finished"))
    assert judged.category == category
    grave = {"child-safety": "critical", "self-harm": "critical", "mass-harm": "critical"}
    plain = {"copyright": "info", "advice": "info", "capability": "info", "declined": "info"}
    assert judged.severity == {**grave, **plain}.get(category, "warning")


@pytest.mark.parametrize("text", DECLINED)
def test_a_beginning_is_not_judged_plain(text: str) -> None:
    """Assign no category to the common opening of a refusal."""
    assert SHIPPED.judge(alert(text)).category == "other"


def test_shipped_without_a_text() -> None:
    """Assign categories to alerts without a text, so that routes can match them."""
    alerts = (
        stopped("filtered", "content_filter"),
        stopped("blocked", "cyber_policy_violation"),
        stopped("blocked", "content_policy_violation"),
        stopped("filtered", "RECITATION", reason_class="recitation"),
        stopped("blocked", "INTERVENED", reason_class="guardrail"),
        stopped("refused", "refusal", reason_class="refusal"),
        contradicted("I can't talk of suicide."),
        spike(),
        spike("refusal.spike.ended", severity="info"),
    )
    assert [(judged.category, judged.severity) for judged in map(SHIPPED.judge, alerts)] == [
        ("content-filter", "warning"),
        ("cyber", "warning"),
        ("policy", "warning"),
        ("copyright", "warning"),
        ("guardrail", "warning"),
        ("refused", "warning"),
        ("contradicted", "info"),
        ("refusal-rate", "warning"),
        ("refusal-rate", "info"),
    ]


@pytest.mark.parametrize("texts", TEXTS.values())
def test_shipped_judge_refusals_only(texts: list[str]) -> None:
    """Judge only refusals. Otherwise reasoning, or a later version's texts, would be taken for refusals."""
    for text in texts:
        judged = SHIPPED.judge(alert(text, "prompt.flagged", severity="severe"))
        assert (judged.category, judged.severity) == ("other", "severe")


def test_shipped_stand_in_order_of_severity() -> None:
    """Order the shipped rules by severity. Otherwise a mild rule would take a severe text."""
    rank = {"critical": 0, "warning": 1, None: 1, "info": 2}
    texts = [rule for rule in shipped() if rule.pattern and rule.name != "policy"]
    assert all(rank[first.severity] <= rank[second.severity] for first, second in pairwise(texts))
    assert len({rule.name for rule in shipped()}) == len(shipped())


OWN = """
[[rules]]
name = "ours"
pattern = "sorry"
severity = "critical"
category = "complaints"
[[rules]]
name = "declined"
pattern = "I can't"
"""


def test_the_rules_of_the_file_come_first() -> None:
    """Apply configured rules first; one with a shipped name replaces that rule."""
    rules = rules_of(config(OWN))
    assert [rule.name for rule in rules[:3]] == ["ours", "declined", "child-safety"]
    assert [rule.name for rule in rules].count("declined") == 1
    ours = Judge(rules).judge(alert("I'm sorry, I can't talk of suicide."))
    assert (ours.rule, ours.category, ours.severity) == ("ours", "complaints", "critical")
    replaced = Judge(rules).judge(alert("I can't.", severity="info"))
    assert (replaced.rule, replaced.category, replaced.severity) == ("declined", "declined", "info")


@pytest.mark.parametrize(
    ("toml", "names"),
    [
        ("shipped_rules = false", []),
        ("shipped_rules = []", []),
        ('shipped_rules = ["declined", "self-harm"]', ["self-harm", "declined"]),
        ("shipped_rules = true", [rule.name for rule in shipped()]),
    ],
)
def test_shipped_can_be_chosen(toml: str, names: list[str]) -> None:
    """Use only the shipped rules that are selected."""
    assert [rule.name for rule in rules_of(config(toml))] == names


def test_no_rule_fits() -> None:
    """Keep the worker's severity if no rule matches."""
    judged = Judge(()).judge(alert("No.", severity="critical"))
    assert (judged.severity, judged.category, judged.rule) == ("critical", "other", None)


MORE = """
[[rules]]
name = "finished"
match = { phase = ["finished", "blocked"], tenant = "ac*", text = ["polic", '(?i)^no\\b', '^$'] }
[[rules]]
name = "model"
match = { model = ["gpt-*", "other"] }
pattern = '(?i)kill|\\bK'
"""
RULES = rules_of(config(OWN + MORE))
ALL_TEXTS = [text for texts in TEXTS.values() for text in texts]


@given(
    st.lists(st.sampled_from(ALL_TEXTS) | st.text(max_size=5), max_size=3).map(" ".join),
    st.sampled_from(["refusal.opened", "refusal.finished", "response.blocked", "prompt.flagged"]),
    st.fixed_dictionaries(
        {
            "tenant": st.sampled_from(["acme", "other", None]),
            "model": st.sampled_from(["gpt-x", "other", "*", None]),
            "reason": st.sampled_from(["cyber_policy", None]),
        }
    ),
    st.sets(st.sampled_from(RULES)).map(lambda without: [rule for rule in RULES if rule not in without]),
)
def test_the_first_rule_that_fits_decides(
    text: str, phase: str, facts: dict[str, str | None], rules: list[AlertRule]
) -> None:
    """Judge as if each rule were tried in turn, which `deltaloom alerts explain` shows."""
    of = alert(text, phase, **facts)
    judged = Judge(rules).judge(of)
    fitting = [asked.rule.name for asked in try_rules(of, rules) if asked.mismatch is None]
    assert fitting == ([] if judged.rule is None else [judged.rule])
