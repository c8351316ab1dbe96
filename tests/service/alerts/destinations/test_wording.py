"""Cutting, links and references: what the texts of all destinations are made with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import example, given
from hypothesis import strategies as st

from service.alerts.destinations import wording
from tests.notifications import alert, notifications, spike

if TYPE_CHECKING:
    from service.alerts.delivery import Notification


def units(text: str) -> int:
    """UTF-16 code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def doubled(text: str) -> str:
    """A way of writing that makes every second character longer."""
    return "".join(each * (1 + at % 2) for at, each in enumerate(text))


@given(st.text(max_size=80), st.integers(2, 60), st.sampled_from([str, doubled]))
@example("\U0001f600" * 10, 5, str)
def test_a_cut_text_fits_and_is_as_long_as_it_can_be(text: str, at_most: int, written: type[str]) -> None:
    """A receiver would refuse it, or a text would be cut that had room."""
    cut = wording.cut(text, at_most, written)
    assert units(cut) <= at_most
    if cut != written(text):
        assert units(written(text)) > at_most
        kept = next(end for end in range(len(text) + 1) if written(text[:end] + "…") == cut)
        assert units(written(text[: kept + 1] + "…")) > at_most


@given(notifications())
def test_headline_and_facts_are_lines(sent: Notification) -> None:
    """A tenant's name could write further lines into a mail's head or into a log."""
    for line in (wording.headline(sent), *(value for _, value in wording.facts(sent))):
        assert line.isprintable()
        assert line


def test_a_link_is_quoted_and_left_out_where_something_is_missing() -> None:
    """A tenant's name could lead somewhere else; or a link would lead nowhere."""
    template = "https://console.example/{tenant}/{response_id}?m={model}"
    assert (
        wording.link(template, alert(tenant="../a b", response_id="r?", model="ü"))
        == "https://console.example/..%2Fa%20b/r%3F?m=%C3%BC"
    )
    assert wording.link(template, alert(tenant=None)) is None
    assert wording.link(None, alert()) is None


def test_a_spike_says_how_far_above() -> None:
    """On-call could not tell whether to get up."""
    said = dict(wording.facts(spike()))
    assert said["Refused"] == "50 of 200 responses (25.0%) since 2026-03-04 04:56:07 UTC"
    assert said["Before"] == "80 of 4000 responses (2.0%)"
