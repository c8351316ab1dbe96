"""Test the parsing of alerts of other versions: odd fields are left out, and other data is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.alert_parsing import NotAnAlertError, parse_alert
from tests.service.alerts.made import alert, spike

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NEEDED = ("id", "severity", "raised_at")
OTHERS = [name for name in alert().model_dump(mode="json") if name not in NEEDED]
OPEN = ("type", "text", "kind", "status", "integrity", "reason", "reason_class", "tenant", "provider")


def written(**changed: Any) -> str:
    """Return the JSON of an alert with these fields."""
    return json.dumps({**alert().model_dump(mode="json"), **changed})


def test_an_alert_is_read_as_it_is() -> None:
    """Parse an alert of this version without leaving fields out."""
    for of in (alert(), spike(), alert(provider="openai", context_truncated=("tenant",))):
        assert parse_alert(of.model_dump_json()) == (of, ())
        assert parse_alert(of.model_dump_json().encode()) == (of, ())


@given(st.dictionaries(st.sampled_from(OTHERS) | st.text().filter(lambda name: name not in NEEDED), JSON))
def test_only_id_severity_and_time_are_needed(changed: dict[str, Any]) -> None:
    """Require only the id, the severity and the time. Otherwise one odd field would suppress an alert."""
    read = parse_alert(written(**changed))
    assert (read.alert.id, read.alert.severity) == (alert().id, alert().severity)
    assert set(read.left_out) <= changed.keys()
    for name in OPEN:
        if isinstance(changed.get(name), str):
            assert getattr(read.alert, name) == changed[name]


def test_an_odd_field_is_left_out_and_named() -> None:
    """Leave out and name odd fields."""
    rate = {"by": "region", "name": "eu"}
    read = parse_alert(written(rate=rate, tenant=7, text=None, schema="two"))
    assert read.left_out == ("rate", "schema", "tenant", "text")
    assert (read.alert.rate, read.alert.tenant, read.alert.text) == (None, None, "")
    assert read.alert.model == "gpt-x"


@pytest.mark.parametrize("name", ["later", "rate", "tenant"])
def test_deep_nesting_costs_its_field_only(name: str) -> None:
    """Leave out a deeply nested field, and keep the alert."""
    deep = "[" * 300 + "]" * 300
    read = parse_alert(written(**{name: "deep"}).replace('"deep"', deep))
    assert read.alert.id == alert().id
    assert read.left_out == (() if name == "later" else (name,))


def test_half_of_a_surrogate_pair_costs_one_character() -> None:
    """Replace a lone surrogate by a question mark."""
    assert parse_alert(written(text="a\ud800b", tenant="\udc00")).alert.text == "a?b"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "it is not JSON"),
        ("No.", "it is not JSON"),
        (b"\xff\xfe\xfd", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "it is not a JSON object"),
        ("{}", "id: Field required"),
        ('{"id": "x", "severity": "info"}', "raised_at: Field required"),
        ('{"id": "x", "severity": "info", "raised_at": "now"}', "raised_at: "),
        (written(severity=None), "severity: "),
        (written(id=7), "id: "),
    ],
)
def test_other_data_is_refused(data: str | bytes, why: str) -> None:
    """Refuse data that is not an alert, and give the reason."""
    with pytest.raises(NotAnAlertError) as raised:
        parse_alert(data)
    assert str(raised.value).startswith(why)


def test_the_error_does_not_quote_a_text() -> None:
    """Keep texts out of the reason, since it is stored with undelivered alerts."""
    with pytest.raises(NotAnAlertError) as raised:
        parse_alert(written(id={"hunter2": "hunter2"}, text=["hunter2"]))
    assert "hunter2" not in str(raised.value)
