"""Test secrets that a file holds: `NAME_FILE` in place of `NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from service.alerts.destinations.failures import DestinationError
from service.alerts.destinations.secrets import from_variable
from service.secret_files import MAX_SECRET, SecretFileError, secret_of
from service.settings import Settings, SettingsError
from tests.service.cli.command import deltaloom, environment

if TYPE_CHECKING:
    from pathlib import Path

URL = "redis://worker:s3cret@nowhere.invalid:6379/0"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Create the file of a secret, with the newline that most editors and commands append."""
    path = tmp_path / "secret"
    path.write_text(f"{URL}\n", "utf-8")
    return path


def test_secret_is_the_value_of_the_variable_or_the_content_of_the_file(file: Path) -> None:
    """Read either one. An empty variable counts as not set, as for all settings."""
    assert secret_of("NAME", {}) is None
    assert secret_of("NAME", {"NAME": " word\n"}) == "word"
    assert secret_of("NAME", {"NAME_FILE": str(file)}) == URL
    assert secret_of("NAME", {"NAME": "", "NAME_FILE": str(file)}) == URL
    assert secret_of("NAME", {"NAME": "word", "NAME_FILE": ""}) == "word"


def broken_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Return files that cannot be used, each with the error about it."""
    contents = {
        "empty": (b" \n", "is empty; a secret is expected there"),
        "large": (
            b"s3cret" * MAX_SECRET,
            f"has more than {MAX_SECRET} characters; a secret is expected there",
        ),
        "binary": (b"s3cret\xff", "where a secret is expected, is not text"),
        "two": (b"s3cret\ns3cret", "has more than one line; a secret is one"),
    }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    files = {name: (folder / name, error) for name, (_, error) in contents.items()}
    missing = folder / "missing", "where a secret is expected: No such file or directory"
    return {**files, "missing": missing, "folder": (folder, "where a secret is expected: Is a directory")}


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "large", "binary", "two"])
def test_file_that_cannot_be_used_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    """Name the variable, the path and the reason, wherever the secret is read, and never its content."""
    path, error = broken_files(tmp_path)[kind]
    named = {"NAME_FILE": str(path)}
    with pytest.raises(SecretFileError, match=f"^NAME_FILE: the file {path}.*{error}$"):
        secret_of("NAME", named)
    with pytest.raises(DestinationError, match=f"^NAME_FILE: the file {path}.*{error}$"):
        from_variable("NAME", named)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("REDIS_URL_FILE", str(path))
    with pytest.raises(SettingsError) as caught:
        Settings.read()
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"REDIS_URL_FILE: the file {path}")
    assert "s3cret" not in line


def test_both_are_an_error(file: Path) -> None:
    """Accept no second value. Otherwise a password that was changed in one place would stay in use."""
    with pytest.raises(SecretFileError, match=r"^NAME and NAME_FILE are both set; unset one of them$"):
        secret_of("NAME", {"NAME": "word", "NAME_FILE": str(file)})


@pytest.mark.parametrize(
    ("others", "url"),
    [
        ({"REDIS_URL_FILE": "{file}"}, URL),
        ({"DELTALOOM_REDIS_URL_FILE": "{file}"}, URL),
        ({"DELTALOOM_REDIS_URL_FILE": "{file}", "REDIS_URL": "redis://shared"}, URL),
        ({"REDIS_URL_FILE": "{file}", "DELTALOOM_REDIS_URL": "redis://own"}, "redis://own"),
    ],
)
def test_url_in_a_file(monkeypatch: pytest.MonkeyPatch, file: Path, others: dict[str, str], url: str) -> None:
    """Read the URL from a file; the variables of deltaloom take precedence over the shared ones."""
    for name in ("REDIS_URL", "DELTALOOM_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in others.items():
        monkeypatch.setenv(name, value.format(file=file))
    settings = Settings.read()
    assert settings.redis_url == url
    assert "redis_url" in settings.model_fields_set
    assert Settings.read(redis_url="redis://argument").redis_url == "redis://argument"


@pytest.mark.parametrize("command", ["check", "worker", "relay", "tail"])
def test_commands_say_it_in_one_line(tmp_path: Path, file: Path, command: str) -> None:
    """Exit with 2, since a retry would not help."""
    (tmp_path / "alerts.toml").write_text('[destinations.log]\ntype = "log"\n')
    arguments = [command, *(["alerts"] if command == "tail" else [])]
    for more, says in (
        (
            {"REDIS_URL_FILE": "gone"},
            "REDIS_URL_FILE: the file gone, where a secret is expected: No such file",
        ),
        (
            {"REDIS_URL_FILE": str(file), "REDIS_URL": "redis://a"},
            "REDIS_URL and REDIS_URL_FILE are both set",
        ),
    ):
        done = deltaloom(*arguments, env=environment(**more), cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(says)
        assert len(done.stderr.splitlines()) == 1


def test_wrong_url_in_a_file_is_not_shown(tmp_path: Path, file: Path) -> None:
    """Name the variable of the file. The content may be a password."""
    file.write_text("http://user:s3cret@host")
    done = deltaloom("check", env=environment(REDIS_URL_FILE=str(file)), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("REDIS_URL_FILE=(not shown) is not allowed: a URL that starts with")
    assert "s3cret" not in done.stderr


def test_check_of_alerts_finds_a_missing_file(tmp_path: Path) -> None:
    """`deltaloom alerts check` reads the files too, so that a relay does not fail at its start."""
    (tmp_path / "alerts.toml").write_text(
        '[destinations.team]\ntype = "webhook"\nurl = "https://x.example"\nsecret_env = "TEAM"\n'
    )
    (tmp_path / "team").write_text("whsec_czNjcmV0czNjcmV0czNjcmV0czNjcmV0\n")
    done = deltaloom("alerts", "check", env=environment(TEAM_FILE="gone"), cwd=tmp_path)
    assert done.returncode == 2
    assert "TEAM_FILE: the file gone, where a secret is expected: No such file or directory" in done.stderr
    done = deltaloom("alerts", "check", env=environment(TEAM_FILE="team"), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
