"""Test the options of destinations, and the lookup of their secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ConfigDict, TypeAdapter, ValidationError

from service.alerts.destinations import secrets
from service.alerts.destinations.failures import DestinationError
from service.alerts.destinations.registry import DestinationOptions

if TYPE_CHECKING:
    from pathlib import Path

TABLES: Any = TypeAdapter(DestinationOptions, config=ConfigDict(hide_input_in_errors=True))
WEBHOOK = {"type": "webhook", "url": "https://example.com/alerts", "secret_env": "SECRET"}


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"type": "slack", "url": "https://hooks.slack.com/hunter2"}, "named by url_env"),
        ({**WEBHOOK, "secret": "hunter2"}, "named by secret_env"),
        ({"type": "pagerduty", "routing_key": "hunter2"}, "named by routing_key_env"),
        (
            {**WEBHOOK, "url": "https://a:hunter2@example.com"},
            "without user and password",
        ),
        ({"type": "slack", "url_env": "https://hooks.slack.com/hunter2"}, "should match pattern"),
        ({"type": "slack"}, "one of url_env, url_file, not none"),
        ({"type": "slack", "url_env": "A", "url_file": "b"}, "not url_env and url_file"),
        ({"type": "webhook", "url": "https://example.com"}, "a secret to sign with"),
        ({**WEBHOOK, "url": "ftp://example.com"}, "starts with https://"),
        ({**WEBHOOK, "url": "https://[::"}, "starts with https://"),
        ({"type": "log", "link": "https://example.com/{nothing}"}, "only these stand in braces"),
        ({"type": "log", "link": "https://example.com/{id!r:>9}"}, "only these stand in braces"),
        ({"type": "log", "link": "https://example.com/{id"}, "whose braces match"),
        ({"type": "log", "link": "{reference}/x"}, "or {reference} alone"),
        ({"type": "log", "link": "{response_id}"}, "or {reference} alone"),
        ({"type": "log", "link": "https://{reference}/"}, "whose host ends as written here"),
        ({"type": "log", "link": "https://x.{tenant}:80/"}, "whose host ends as written here"),
        ({"type": "log", "give_up_after": 100_000}, "less than or equal to 86400"),
        ({"type": "log", "group": {"by": ["colour"]}}, "'category', 'severity'"),
        ({"type": "log", "rate_limit": {"per_minute": 0}}, "greater than 0"),
        ({"type": "log", "colour": "red"}, "Extra inputs are not permitted"),
        ({"type": "command", "command": "rm -rf /"}, "valid tuple"),
        (
            {**WEBHOOK, "allow_addresses": ["10.0.0.1/8"]},
            "an address or a network",
        ),
    ],
)
def test_a_mistake_is_explained_and_no_secret_repeated(table: dict[str, Any], why: str) -> None:
    """Explain an invalid table without showing its secrets."""
    with pytest.raises(ValidationError) as error:
        TABLES.validate_python(table)
    assert why in str(error.value)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "link",
    [
        "{reference}",
        "https://portal.example/requests/{reference}",
        "https://{tenant}.portal.example/{provider}/{upstream_response_id}?from={source}",
    ],
)
def test_links(link: str) -> None:
    """Accept links with a reference or placeholders."""
    assert TABLES.validate_python({"type": "log", "link": link}).link == link


def test_a_secret_from_a_file_or_a_variable(tmp_path: Path) -> None:
    """Strip white space from a secret. Otherwise a line end would be part of it."""
    file = tmp_path / "secret"
    file.write_text(" s3cret\n", "utf-8")
    assert secrets.secret(None, file, {}) == secrets.secret("A", None, {"A": "s3cret\n"}) == "s3cret"
    assert secrets.secret(None, None, {"A": "s3cret"}) is None


def test_a_missing_secret_is_named_by_its_place(tmp_path: Path) -> None:
    """Name the variable or file of a missing or invalid secret, without showing any part of it."""
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfehunter2")
    for variable, path, why in (
        ("NOT_SET", None, "NOT_SET is not set"),
        (None, tmp_path / "nothing", "nothing, where a secret is expected: No such file"),
        (None, tmp_path, "where a secret is expected: Is a directory"),
        (None, tmp_path / "empty", "empty is empty"),
        (None, tmp_path / "binary", "is not text"),
        ("TWO_LINES", None, "TWO_LINES holds more than one line"),
    ):
        with pytest.raises(DestinationError, match=why):
            secrets.secret(variable, path, {"NOT_SET": " ", "TWO_LINES": "hunter2\nhunter2"})
    for odd in (
        "hooks.example.com/hunter2",
        "ftp://hunter2",
        "https://",
        "https://[hunter2",
        "https://a:hunter2",
    ):
        with pytest.raises(DestinationError, match="URL does not hold a URL") as error:
            secrets.web_address("URL", None, {"URL": odd})
        assert "hunter2" not in str(error.value)
