"""Test who may see the status, and that it has no secrets."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

from service import logs
from service.observability.routes import HttpRequest
from service.observability.status import StatusGuard, about
from service.secret_files import MAX_SECRET
from service.settings import Settings, SettingsError

if TYPE_CHECKING:
    from pathlib import Path


def asked(guard: StatusGuard, authorization: str | None = None) -> int:
    """Return the status of the refusal, or 200."""
    headers = {} if authorization is None else {"Authorization": authorization}
    refusal = guard.refusal(HttpRequest("/statusz", headers))
    return 200 if refusal is None else refusal.status


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", 200),
        ("[::1]:1", 200),
        ("localhost:1", 200),
        ("0.0.0.0:1", 403),
        ("[::]:1", 403),
        ("worker-1:1", 403),
    ],
)
def test_only_loopback_needs_no_token(address: str, expected: int) -> None:
    """Elsewhere the status is refused, with the remedy, until there is a token."""
    assert asked(StatusGuard(Settings(http=address))) == expected


@pytest.mark.parametrize("address", ["0.0.0.0:1", "127.0.0.1:1"])
def test_the_token_is_needed(address: str, tmp_path: Path) -> None:
    """Neither a missing nor a wrong token is accepted, also on loopback."""
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    guard = StatusGuard(Settings(http=address, http_token_file=file))
    assert asked(guard, "Bearer s3cret") == 200
    for wrong in (None, "", "Bearer", "Bearer s3cre", "Basic s3cret", "Bearer é", "Bearer \udcff"):
        assert asked(guard, wrong) == 401


def test_a_file_that_is_no_secret_is_an_error(tmp_path: Path) -> None:
    """A wrong path must not keep a whole file in memory, nor bytes that no header can have."""
    (tmp_path / "large").write_text("x" * (MAX_SECRET + 1))
    (tmp_path / "binary").write_bytes(b"\xff")
    for name, why in (("large", "more than"), ("binary", "not text")):
        with pytest.raises(SettingsError, match=f"DELTALOOM_HTTP_TOKEN_FILE: .*{why}"):
            StatusGuard(Settings(http="0.0.0.0:1", http_token_file=tmp_path / name))


def test_a_missing_or_empty_token_is_an_error(tmp_path: Path) -> None:
    """Otherwise everybody, or nobody, could see the status."""
    with pytest.raises(SettingsError, match="No such file"):
        StatusGuard(Settings(http="0.0.0.0:1", http_token_file=tmp_path / "missing"))
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(SettingsError, match="is empty"):
        StatusGuard(Settings(http="0.0.0.0:1", http_token_file=tmp_path / "empty"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rediss://user:s3cret@host:6380/2?password=s3cret", "rediss://host:6380/2"),
        (
            "redis+sentinel://:s3cret@a,b/main?sentinel_password=s3cret",
            "redis://a:26379/0",
        ),
    ],
)
def test_no_secret_is_shown(url: str, shown: str) -> None:
    """Neither the password nor an option of the URL is shown, nor the text of an error."""
    settings = Settings(redis_url=url)
    logs.configure(settings, io.StringIO())
    logs.logger().warning("dead letter", reason="malformed_json", error="s3cret", text="s3cret")
    found = about(settings)
    assert "s3cret" not in json.dumps(found)
    assert found["settings"]["redis"] == shown
    latest = found["latest_warnings"][-1]
    assert (latest["event"], latest["level"], latest["reason"]) == (
        "dead letter",
        "warning",
        "malformed_json",
    )
