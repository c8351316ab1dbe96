"""Test cuts, links and references, which the messages of all destinations use."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deltaloom.messages import KnownAlertType
from service.alerts.destinations import wording
from tests.notifications import alert, notification, notifications, spike

if TYPE_CHECKING:
    from service.alerts.delivery import Notification


def units(text: str) -> int:
    """Return the length in UTF-16 code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def doubled(text: str) -> str:
    """Return the text with every second character doubled, as an escape would lengthen it."""
    return "".join(each * (1 + at % 2) for at, each in enumerate(text))


@given(st.text(max_size=80), st.integers(2, 60), st.sampled_from([str, doubled]))
@example("\U0001f600" * 10, 5, str)
def test_a_cut_text_fits_and_is_as_long_as_it_can_be(text: str, at_most: int, written: type[str]) -> None:
    """Cut a text to at most the limit, and not more than necessary."""
    cut = wording.cut(text, at_most, written)
    assert units(cut) <= at_most
    if cut != written(text):
        assert units(written(text)) > at_most
        kept = next(end for end in range(len(text) + 1) if written(text[:end] + "…") == cut)
        assert units(written(text[: kept + 1] + "…")) > at_most


@given(notifications())
def test_headline_and_facts_are_lines(sent: Notification) -> None:
    """Keep headline and facts on one line. Otherwise a tenant's name could add lines to a mail."""
    for line in (wording.headline(sent), *(value for _, value in wording.facts(sent))):
        assert line.isprintable()
        assert line


def test_a_fallback_names_both_models_first() -> None:
    """Name the models of a fallback in headline and facts; Slack shows only the first facts."""
    fallback = {"from_model": "a", "to_model": "b\n", "trigger": None}
    sent = notification(alert("deltaloom.response.fallback", fallback=fallback, text="", kind=None))
    assert wording.headline(sent).startswith("Another model answered for one that refused · ")
    facts = dict(wording.facts(sent)[:6])
    assert (facts["Refused by"], facts["Answered by"], "Trigger" in facts) == ("a", "b", False)


def test_a_link_is_quoted_and_left_out_where_something_is_missing() -> None:
    """Quote the values in a link, and make none if a value is missing."""
    template = "https://console.example/{tenant}/{response_id}?m={model}"
    assert (
        wording.link(template, alert(tenant="../a b", response_id="r?", model="ü"))
        == "https://console.example/..%2Fa%20b/r%3F?m=%C3%BC"
    )
    assert wording.link(template, alert(tenant=None)) is None
    assert wording.link(None, alert()) is None


REQUESTS = "https://portal.example/requests/{reference}"


@pytest.mark.parametrize(
    ("template", "reference", "target"),
    [
        (REQUESTS, "req_1", "https://portal.example/requests/req_1"),
        (REQUESTS, "a/b?c#d", "https://portal.example/requests/a%2Fb%3Fc%23d"),
        (REQUESTS, "javascript:alert(1)", "https://portal.example/requests/javascript%3Aalert%281%29"),
        (REQUESTS, "x|Free> @all\n", "https://portal.example/requests/x%7CFree%3E%20%40all%0A"),
        (REQUESTS, "\ud800", "https://portal.example/requests/%3F"),
        (REQUESTS, "..", None),
        (REQUESTS, "", None),
        (REQUESTS, None, None),
        (
            "{reference}",
            "https://portal.example/a-b_c?q=1&r=%20#s",
            "https://portal.example/a-b_c?q=1&r=%20#s",
        ),
        ("{reference}", "http://10.1.2.3:8080/x", "http://10.1.2.3:8080/x"),
        (
            "{reference}",
            "https://x.example/|F)[a](b)*<@all>",
            "https://x.example/%7CF%29%5Ba%5D%28b%29%2A%3C%40all%3E",
        ),
        ("{reference}", "https://portal.example", "https://portal.example"),
        ("{reference}", "https://user:pass@evil.example/", None),
        ("{reference}", "https://portal.example\\@evil.example/", None),
        ("{reference}", "https://portal.example /x", None),
        ("{reference}", "https://portal.example/\n", None),
        ("{reference}", "https://portal.example/\u202e", None),
        ("{reference}", "javascript:alert(1)", None),
        ("{reference}", "ftp://portal.example/", None),
        ("{reference}", "//evil.example", None),
        ("{reference}", "https://", None),
        ("{reference}", "req_1", None),
        ("{reference}", "", None),
        ("{reference}", None, None),
    ],
)
def test_a_link_to_the_request(template: str, reference: str | None, target: str | None) -> None:
    """Link to the request only with a safe reference."""
    assert wording.link(template, alert(reference=reference)) == target


@given(st.text(max_size=80), st.sampled_from([REQUESTS, "{reference}"]))
@example("https://x.example/<!channel>|x", "{reference}")
def test_no_reference_forges_a_link_or_mark_up(reference: str, template: str) -> None:
    """Make no link or markup from any reference. Otherwise a producer could plant a link."""
    of = alert(reference=reference)
    target = wording.link(template, of)
    for written in (target or "https://", wording.producer_reference(of) or ""):
        assert not set(written) & set(" \n\r\t<>|()[]{}*`@\"'\\")
        assert written.isascii()
        assert written.isprintable()
    if target:
        assert urlsplit(target).scheme in ("http", "https")
    if target and template == REQUESTS:
        assert target.startswith("https://portal.example/requests/")
        assert unquote(target.rpartition("/")[2]) == reference.encode(errors="replace").decode()


def test_an_alert_shows_provider_reason_and_request() -> None:
    """Show the provider, the reason and the request."""
    of = alert(
        "deltaloom.response.blocked",
        provider="openrouter",
        upstream_provider="anthropic",
        status="failed",
        reason="SPII",
        reason_class="policy",
        provider_category="personal data",
        reference="https://portal.example/7?a=(b)",
        upstream_response_id="up_1",
    )
    shown = dict(wording.facts(notification(of)))
    assert shown["Provider"] == "openrouter · anthropic"
    assert (shown["Ended"], shown["Because of"]) == ("failed · SPII", "policy · personal data")
    assert (shown["Request"], shown["Provider's id"]) == ("https://portal.example/7?a=%28b%29", "up_1")
    assert "Type" not in shown


def test_an_unknown_type_and_severity_are_shown() -> None:
    """Show an unknown type and severity unchanged."""
    sent = notification(alert("deltaloom.prompt.flagged", text=""), severity="severe", category="other")
    assert wording.headline(sent) == "Alert deltaloom.prompt.flagged · other · gpt-4o · tenant acme"
    shown = dict(wording.facts(sent))
    assert (shown["Type"], shown["Severity"]) == ("deltaloom.prompt.flagged", "severe")


def test_every_known_type_has_a_headline() -> None:
    """Define a headline for each known type."""
    for kind_of in get_args(KnownAlertType):
        assert "deltaloom" not in wording.headline(notification(alert(kind_of)))


def test_a_spike_shows_blocked_responses() -> None:
    """Show the blocked responses of a spike if there are any."""
    rate = spike().alert.rate
    assert rate
    blocked = spike().alert.model_copy(update={"rate": rate.model_copy(update={"blocked": 3})})
    assert dict(wording.facts(notification(blocked)))["Blocked"] == "3 of 200, before 0"
    assert "Blocked" not in dict(wording.facts(spike()))


def test_a_spike_shows_its_subject() -> None:
    """Name the provider of a spike, or the unknown scope of a later version."""
    rate = spike().alert.rate
    assert rate
    by = {scope: rate.model_copy(update={"by": scope, "name": "x"}) for scope in ("provider", "region")}
    of = spike().alert.model_copy(update={"model": None})
    provider = notification(of.model_copy(update={"provider": "x", "rate": by["provider"]}))
    assert wording.headline(provider) == "Far more is refused than usual · self-harm · provider x"
    region = notification(of.model_copy(update={"rate": by["region"]}))
    assert dict(wording.facts(region))["Counted by"] == "region · x"


def test_left_out_values_are_listed() -> None:
    """List the values that were left out."""
    shown = dict(wording.facts(notification(alert(context_truncated=["model", "reference"]))))
    assert shown["Too long to tell"] == "model, reference"


def test_a_spike_shows_its_shares() -> None:
    """Show the shares of window and baseline."""
    shown = dict(wording.facts(spike()))
    assert shown["Refused"] == "50 of 200 responses (25.0%) since 2026-03-04 04:56:07 UTC"
    assert shown["Before"] == "80 of 4000 responses (2.0%)"
