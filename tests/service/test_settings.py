"""Test the settings: read once, with one error line for each invalid value."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.settings import ENV_PREFIX, Settings, SettingsError, variable

PASSWORD = "s3cret"  # noqa: S105 - a made-up password that no error may show


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset all settings, so that the developer's environment does not change the results."""
    for name in Settings.model_fields:
        monkeypatch.delenv(variable(name), raising=False)
        monkeypatch.delenv(f"{ENV_PREFIX}{name.upper()}", raising=False)


def error_lines(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[str]:
    """Return the lines of the error that reading this environment raises."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        Settings.read()
    return str(caught.value).splitlines()


def test_defaults_are_allowed() -> None:
    """Accept the defaults. Otherwise the worker could not start without settings."""
    settings = Settings.read()
    assert settings.redis_url == "redis://localhost:6379/0"
    assert settings.prefix == "deltaloom"
    assert settings.max_event_bytes == 1024 * 1024
    assert settings.max_part_bytes == 8 * 1024 * 1024
    assert settings.handlers is None
    assert settings.log_text is False


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described(name: str) -> None:
    """Describe each setting. Otherwise the settings table would have an empty row."""
    description = Settings.model_fields[name].description
    assert description is not None
    assert description.endswith(".")


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("BATCH_SIZE", "0", "greater than or equal to 1"),
        ("BATCH_SIZE", "20001", "less than or equal to 20000"),
        ("BATCH_SIZE", "many", "a valid integer"),
        ("BATCH_SIZE", "1.5", "a valid integer"),
        ("BLOCK_MS", "2001", "less than or equal to 2000"),
        ("MAX_EVENT_BYTES", "1023", "greater than or equal to 1024"),
        ("MAX_PART_BYTES", "8MiB", "a valid integer"),
        ("IDLE_TIMEOUT", "0", "greater than 0"),
        ("IDLE_TIMEOUT", "-1", "greater than 0"),
        ("IDLE_TIMEOUT", "nan", "a finite number"),
        ("IDLE_TIMEOUT", "2m", "a valid number"),
        ("SWEEP_INTERVAL", "61", "less than or equal to 60"),
        ("STATE_TTL", "59", "greater than or equal to 60"),
        ("STATE_TTL", "3153600001", "less than or equal to 3153600000"),
        ("MARKER_TTL", "1e17", "less than or equal to 3153600000"),
        ("ITEM_TTL", "1e17", "less than or equal to 3153600000"),
        ("RETENTION", "1e17", "less than or equal to 3153600000"),
        ("MARKER_TTL", "59", "greater than or equal to 60"),
        ("ITEM_TTL", "59", "greater than or equal to 60"),
        ("KIND_RETENTION", "reasoning", "reasoning=seconds, whole and at least 60"),
        ("KIND_RETENTION", "reasoning=59", "reasoning=seconds, whole and at least 60"),
        ("KIND_RETENTION", "reasoning=1.5e3", "reasoning=seconds, whole and at least 60"),
        ("KIND_RETENTION", "reasoning=60,reasoning=90", "reasoning at most once"),
        ("KIND_RETENTION", "thoughts=60", "kinds are refusal, reasoning, reasoning_summary, output_text"),
        ("KIND_RETENTION", "reasoning=60,", "kind=seconds, separated by commas"),
        ("KIND_RETENTION", "refusal=604801", "refusal is removed after 604800 seconds in any case"),
        ("SHUTDOWN_TIMEOUT", "0", "greater than 0"),
        ("LOG_LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
        ("LOG_FORMAT", "xml", "'auto', 'pretty' or 'json'"),
        ("LOG_TEXT", "maybe", "a valid boolean"),
        ("SPIKE_WINDOW", "-1", "greater than or equal to 0"),
        ("SPIKE_RESPONSES", "9", "greater than or equal to 10"),
        ("SPIKE_RATIO", "0.5", "greater than or equal to 1"),
        ("SPIKE_SCORE", "1", "greater than or equal to 2"),
        ("PARTITIONS", "-1", "greater than or equal to 0"),
        ("PARTITIONS", "1025", "less than or equal to 1024"),
        ("PARTITIONS", "some", "a valid integer"),
        ("PREFIX", "a b", "no white space, no braces"),
        ("PREFIX", "{a}", "no white space, no braces"),
    ],
)
def test_wrong_value_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    """Name the variable, its value and the allowed values in one line, instead of a traceback."""
    (line,) = error_lines(monkeypatch, **{f"DELTALOOM_{name}": value})
    assert line.startswith(f"DELTALOOM_{name}={value!r} is not allowed: ")
    assert allowed in line


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, info in Settings.model_fields.items()
        if isinstance(info.default, float | int) and not isinstance(info.default, bool)
    ],
)
def test_infinity_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Reject infinity. Otherwise the worker would start and then fail at its first batch."""
    (line, *_) = error_lines(monkeypatch, **{variable(name): "inf"})
    assert line.startswith(f"{variable(name)}='inf' is not allowed: ")


def test_url_is_named_as_it_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the variable that was read. Otherwise an operator would look at one that is correct or unset."""
    (line,) = error_lines(monkeypatch, REDIS_URL="redis://right", DELTALOOM_REDIS_URL="wrong")
    assert line.startswith("DELTALOOM_REDIS_URL=(not shown) is not allowed: a URL")


def test_every_wrong_value_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Report all invalid values together. Otherwise an operator would need one start for each."""
    lines = error_lines(monkeypatch, DELTALOOM_BATCH_SIZE="x", DELTALOOM_LOG_LEVEL="y", REDIS_URL="z")
    assert {line.split("=")[0] for line in lines} == {
        "DELTALOOM_BATCH_SIZE",
        "DELTALOOM_LOG_LEVEL",
        "REDIS_URL",
    }


def test_value_with_line_breaks_is_still_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Escape line breaks in a reported value. Otherwise a pasted value would span several lines."""
    (line,) = error_lines(monkeypatch, DELTALOOM_BATCH_SIZE="1\n2\r3")
    assert "'1\\n2\\r3'" in line


@pytest.mark.parametrize("name", ["REDIS_URL", "DELTALOOM_REDIS_URL"])
def test_url_is_never_shown(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Hide the URL in errors. Otherwise its password would be in the worker's log."""
    (line,) = error_lines(monkeypatch, **{name: f"http://user:{PASSWORD}@host"})
    assert PASSWORD not in line
    assert re.match(r"(DELTALOOM_)?REDIS_URL=\(not shown\) is not allowed: ", line)
    assert "redis://, rediss:// or unix://" in line


def test_url_is_not_shown_by_the_traceback_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Suppress the original exception. Otherwise the traceback would show the value."""
    monkeypatch.setenv("REDIS_URL", f"http://user:{PASSWORD}@host")
    with pytest.raises(SettingsError) as caught:
        Settings.read()
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("url", ["redis://h:1/2", "rediss://u:p@h", "unix:///run/redis.sock"])
def test_url_of_each_kind(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Accept TLS and Unix socket URLs."""
    monkeypatch.setenv("REDIS_URL", url)
    assert Settings.read().redis_url == url


def test_own_url_comes_before_the_shared_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefer `DELTALOOM_REDIS_URL` to the `REDIS_URL` that is shared with other applications."""
    monkeypatch.setenv("REDIS_URL", "redis://shared")
    monkeypatch.setenv("DELTALOOM_REDIS_URL", "redis://own")
    assert Settings.read().redis_url == "redis://own"


def test_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat an empty variable as unset. Otherwise a compose file that passes on an unset one would fail."""
    for name in Settings.model_fields:
        monkeypatch.setenv(variable(name), "")
    assert Settings.read().model_dump(exclude={"consumer"}) == Settings().model_dump(exclude={"consumer"})


def test_handlers_are_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept extra blanks and a trailing comma in the list of handlers."""
    monkeypatch.setenv("DELTALOOM_HANDLERS", " refusal, lifecycle ,")
    assert Settings.read().handlers == "refusal,lifecycle"


def test_baseline_is_longer_than_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Require a baseline of two windows. Otherwise a window would be compared with itself."""
    lines = error_lines(monkeypatch, DELTALOOM_SPIKE_WINDOW="300", DELTALOOM_SPIKE_BASELINE="599")
    assert lines == ["DELTALOOM_SPIKE_BASELINE=599 is not allowed: at least twice DELTALOOM_SPIKE_WINDOW=300"]


def test_consumers_have_names_of_their_own() -> None:
    """Give each worker its own consumer name. Otherwise two would share one list of pending entries."""
    assert Settings().consumer != Settings().consumer


def test_arguments_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefer arguments to the environment. Otherwise an option of the command would have no effect."""
    monkeypatch.setenv("REDIS_URL", "redis://shared")
    monkeypatch.setenv("DELTALOOM_BATCH_SIZE", "7")
    settings = Settings.read(redis_url="redis://argument", batch_size=8)
    assert (settings.redis_url, settings.batch_size) == ("redis://argument", 8)


def test_settings_are_frozen() -> None:
    """Freeze the settings. Otherwise two parts of the worker could use different values."""
    with pytest.raises(ValidationError, match="frozen"):
        Settings().batch_size = 1  # type: ignore[misc]  # which is what mypy says too


@pytest.mark.parametrize("name", Settings.model_fields)
def test_variable_is_read_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Read the variable that errors and documentation name."""
    values: dict[str, object] = {
        "redis_url": "redis://other",
        "log_level": "error",
        "log_level_file": Path("other"),
        "log_format": "json",
        "log_text": True,
        "prefix": "other",
        "consumer": "other",
        "handlers": "refusal",
        "serve_partitions": "0,2",
        "redis_mode": "cluster",
        "marker_ttl": 8 * 86400.0,
        "kind_retention": "reasoning=3600",
        "http": "127.0.0.1:9464",
        "retention_bytes": 2**30,
        "retention_group": "archive",
        "http_token_file": Path("token"),
        "heartbeat_file": Path("heartbeat"),
    }
    default = Settings.model_fields[name].default
    value = values.get(name, default + 1 if name != "block_ms" and isinstance(default, int) else default)
    if isinstance(default, float):
        value = default * 2
    monkeypatch.setenv("DELTALOOM_PARTITIONS", "4")
    monkeypatch.setenv(variable(name), str(value))
    assert getattr(Settings.read(), name) == value


@pytest.mark.parametrize(
    ("written", "served"),
    [("0-3", [0, 1, 2, 3]), ("0,2,5-7", [0, 2, 5, 6, 7]), (" 7, 0-1 ,1", [0, 1, 7]), ("3", [3])],
)
def test_partitions_to_serve(written: str, served: list[int]) -> None:
    """Serve exactly the listed partitions."""
    settings = Settings(partitions=8, serve_partitions=written)
    assert [names.partition for names in settings.served] == served


def test_all_partitions_are_served() -> None:
    """Serve all partitions by default. Otherwise some would have no worker."""
    assert [names.partition for names in Settings(partitions=3).served] == [0, 1, 2]
    assert [names.deltas for names in Settings(prefix="other").served] == ["other:deltas"]


@pytest.mark.parametrize(
    ("partitions", "written", "allowed"),
    [
        ("4", "", None),
        ("4", "4", "partitions from 0 to 3, of DELTALOOM_PARTITIONS=4"),
        ("4", "2-9", "partitions from 0 to 3"),
        ("0", "0", "there are no partitions; set DELTALOOM_PARTITIONS first"),
        ("4", "3-0", "numbers and ranges of partitions, like 0-3 or 0,2,5-7"),
        ("4", "0-", "numbers and ranges"),
        ("4", "0,,1", "numbers and ranges"),
        ("4", "-1", "numbers and ranges"),
        ("4", "all", "numbers and ranges"),
        ("4", "0-99999999999", "partitions from 0 to 1023"),
    ],
)
def test_unknown_partitions_are_refused(
    monkeypatch: pytest.MonkeyPatch, partitions: str, written: str, allowed: str | None
) -> None:
    """Reject partitions that do not exist. Otherwise a worker would serve fewer than its operator expects."""
    monkeypatch.setenv("DELTALOOM_PARTITIONS", partitions)
    if allowed is None:
        monkeypatch.setenv("DELTALOOM_SERVE_PARTITIONS", written)
        assert Settings.read().serve_partitions is None
        return
    (line,) = error_lines(monkeypatch, DELTALOOM_SERVE_PARTITIONS=written)
    assert line.startswith("DELTALOOM_SERVE_PARTITIONS=")
    assert f" is not allowed: {allowed}" in line


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        (
            {"REDIS_URL": "redis+cluster://a,b"},
            "DELTALOOM_PARTITIONS=0 is not allowed: in a cluster",
        ),
        ({"DELTALOOM_REDIS_MODE": "cluster"}, "DELTALOOM_PARTITIONS=0 is not allowed: in a cluster"),
        (
            {"REDIS_URL": "redis+cluster://a", "DELTALOOM_PARTITIONS": "1", "DELTALOOM_WAIT_REPLICAS": "1"},
            "DELTALOOM_WAIT_REPLICAS is not allowed in a cluster: WAIT covers one connection",
        ),
        (
            {"REDIS_URL": "redis+cluster://a", "DELTALOOM_PARTITIONS": "1", "DELTALOOM_WAIT_AOF": "true"},
            "DELTALOOM_WAIT_AOF is not allowed in a cluster: WAIT covers one connection",
        ),
        (
            {"DELTALOOM_STATE_TTL": "120"},
            "DELTALOOM_STATE_TTL=120 is not allowed: more than DELTALOOM_IDLE_TIMEOUT=120, else open texts",
        ),
        (
            {"DELTALOOM_MARKER_TTL": "604799"},
            "DELTALOOM_MARKER_TTL=604799 is not allowed: at least DELTALOOM_ITEM_TTL=604800, else a",
        ),
        (
            {"DELTALOOM_MARKER_TTL": "1234567", "DELTALOOM_RETENTION": "2345678"},
            "DELTALOOM_MARKER_TTL=1234567 is not allowed: at least DELTALOOM_RETENTION=2345678, else",
        ),
        (
            {"REDIS_URL": "redis+sentinel://:s3cret@a"},
            "REDIS_URL=(not shown) is not allowed: a URL with the name",
        ),
        (
            {"DELTALOOM_REDIS_URL": "redis://:s3cret@a,b"},
            "DELTALOOM_REDIS_URL=(not shown) is not allowed: one host",
        ),
        (
            {"DELTALOOM_REDIS_MODE": "ring"},
            "DELTALOOM_REDIS_MODE='ring' is not allowed: 'standalone', 'cluster'",
        ),
    ],
)
def test_conflicting_settings_are_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], says: str
) -> None:
    """Reject combinations of settings under which the worker could not keep its guarantees."""
    (line,) = error_lines(monkeypatch, **environment)
    assert line.startswith(says)
    assert PASSWORD not in line


def test_a_cluster_with_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept a cluster if partitions are configured."""
    monkeypatch.setenv("REDIS_URL", "redis+cluster://a,b")
    monkeypatch.setenv("DELTALOOM_PARTITIONS", "1")
    assert Settings.read().address.mode == "cluster"


@pytest.mark.parametrize(
    ("environment", "remembered"),
    [
        ({}, 604_800),
        ({"ITEM_TTL": "3600"}, 604_800),
        ({"ITEM_TTL": "700000"}, 700_000),
        ({"RETENTION": "700000"}, 700_000),
        ({"ITEM_TTL": "60", "RETENTION": "90"}, 90),
        ({"MARKER_TTL": "604800"}, 604_800),
        ({"MARKER_TTL": "700000"}, 700_000),
    ],
)
def test_text_is_remembered_for_the_longest_retention(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], remembered: float
) -> None:
    """Remember finished texts for the longest retention. Otherwise a repeat would write a second text."""
    for name, value in environment.items():
        monkeypatch.setenv(f"DELTALOOM_{name}", value)
    assert Settings.read().remembered == remembered


@pytest.mark.parametrize("address", ["127.0.0.1:9464", "[::1]:0", "localhost:65535", "0.0.0.0:1"])
def test_addresses_to_listen_at(address: str) -> None:
    """Names, IPv4 and IPv6 addresses are allowed, each with a port."""
    assert Settings(http=address).http == address


@pytest.mark.parametrize("address", ["9464", ":9464", "::1:9464", "[localhost]:1", "a:65536", "a:", "a:-1"])
def test_addresses_not_to_listen_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address without host or port, or an IPv6 address without brackets, is an error with the form."""
    monkeypatch.setenv("DELTALOOM_HTTP", address)
    with pytest.raises(SettingsError, match=r"DELTALOOM_HTTP='.*' is not allowed: host:port, like 127"):
        Settings.read()
