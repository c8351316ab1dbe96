"""Test that messages of the SDK show no secret of the receiver."""

from __future__ import annotations

import logging
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.observability.tracing.sdk_messages import SdkMessages, secrets_of

HEADERS = "Authorization=Basic%20aHVzaA==,X-Key=hush key,broken hush-broken"
URL = "https://user:hush-password@collector:4318/v1/traces?token=hush-token"


@pytest.mark.parametrize(
    "message",
    [
        f"Header format invalid: {HEADERS}",
        "Header format invalid: broken hush-broken",
        "401 for Basic aHVzaA==",
        "401 for Basic%20aHVzaA==",
        f"cannot connect to {URL}",
        "cannot connect to https://user:hush-password@collector",
        "GET /v1/traces?token=hush-token",
        "X-Key: hush key",
    ],
)
def test_secrets_are_hidden(message: str) -> None:
    """Hide headers and parts of the URL, as they are written and as they are sent."""
    shown = SdkMessages(secrets_of(URL, HEADERS)).without_secrets(message)
    assert "hush" not in shown
    assert "aHVzaA" not in shown
    assert "(not shown)" in shown


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=8, max_size=40), st.text())
def test_any_secret_is_hidden(secret: str, around: str) -> None:
    """Hide every value of a header."""
    messages = SdkMessages(secrets_of("http://c", f"authorization={quote(secret)}"))
    assert secret not in messages.without_secrets(f"x{secret}y").replace("(not shown)", "")
    assert len(messages.without_secrets(around)) <= 300


def test_messages_do_not_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Keep the SDK's own messages out of the log while traces are exported, and remember the latest one."""
    caplog.set_level(logging.DEBUG)
    messages = SdkMessages(["hush"])
    messages.install()
    try:
        logging.getLogger("opentelemetry.sdk.trace").error("no\n%s", "hush")
        logging.getLogger("urllib3.connectionpool").debug("POST hush")
        logging.getLogger("urllib3.connectionpool").warning("of a destination")
    finally:
        messages.uninstall()
    assert messages.latest == "no (not shown)"
    logging.getLogger("opentelemetry.sdk.trace").error("again")
    assert [record.getMessage() for record in caplog.records] == ["of a destination", "again"]
