"""Settings from the environment variables `DELTALOOM_*` and `REDIS_URL`: read once, validated and frozen."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, AliasChoices, Field, FiniteFloat, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from deltaloom.address import Address, Mode, scheme_of
from deltaloom.streams import Partitions
from service.handler_packages import kind_of, known_kinds
from service.secret_files import SecretFileError, file_variable, secret_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Self

    from pydantic_core import ErrorDetails

    from deltaloom.streams import StreamNames

ENV_PREFIX = "DELTALOOM_"
_OTHER_URL = "DELTALOOM_REDIS_URL"  # takes precedence over REDIS_URL, which other programs may share
MAX_PARTITIONS = 1024
"""Maximum partitions. A worker reads, and looks from time to time at, each one it serves."""

LONGEST = 100 * 365 * 86400
"""Longest time in seconds: a century. Redis rejects far longer TTLs."""

_LAST_PORT = 65535

SHORTEST_RETENTION = 60
"""Shortest retention in seconds, since the clocks of a server and its successor may differ by some."""


LogLevel = Literal["debug", "info", "warning", "error"]
"""Lowest level of the log lines that are written."""


class SettingsError(ValueError):
    """Invalid settings; the message has one line for each, with the remedy."""


def _names(text: str) -> str:
    return ",".join(name.strip() for name in text.split(",") if name.strip())


def _redis_url(url: str) -> str:
    scheme_of(url)  # the rest is checked later, together with DELTALOOM_REDIS_MODE
    return url


def _prefix(prefix: str) -> str:
    if not prefix or any(character.isspace() or character in "{}" for character in prefix):
        message = "at least one character, no white space, no braces"
        raise ValueError(message)
    return prefix


def _numbers(text: str) -> list[int]:
    """Return the numbers in a text like `0,2,5-7`, sorted; raise `ValueError` for another form."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
            message = "numbers and ranges of partitions, like 0-3 or 0,2,5-7"
            raise ValueError(message)
        if int(last or first) >= MAX_PARTITIONS:
            message = f"partitions from 0 to {MAX_PARTITIONS - 1}"
            raise ValueError(message)
        numbers.update(range(int(first), int(last or first) + 1))
    return sorted(numbers)


def _seconds_by_kind(text: str) -> dict[str, int]:
    """Return the seconds by kind in a text like `reasoning=3600,refusal=86400`, or raise `ValueError`."""
    seconds: dict[str, int] = {}
    for part in text.split(","):
        kind, _, number = (word.strip() for word in part.partition("="))
        if kind_of(kind) is None:
            raise ValueError(f"kind=seconds, separated by commas; kinds are {', '.join(known_kinds())}")
        if kind in seconds:
            raise ValueError(f"{kind} at most once")
        if not re.fullmatch("[0-9]{1,9}", number) or int(number) < SHORTEST_RETENTION:
            raise ValueError(f"{kind}=seconds, whole and at least {SHORTEST_RETENTION}")
        seconds[kind] = int(number)
    return seconds


def _kind_retention(text: str | None) -> str | None:
    return text and ",".join(f"{kind}={seconds}" for kind, seconds in _seconds_by_kind(text).items())


def host_and_port(text: str) -> tuple[str, int]:
    """Return host and port of an address like `127.0.0.1:9464` or `[::1]:9464`, or raise `ValueError`."""
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host == f"[{bare}]"
    if (
        not bare
        or bracketed != (":" in bare)
        or not re.fullmatch("[0-9]{1,5}", port)
        or int(port) > _LAST_PORT
    ):
        raise ValueError("host:port, like 127.0.0.1:9464, 0.0.0.0:9464 or [::1]:9464")
    return bare, int(port)


def is_loopback(host: str) -> bool:
    """Return whether an address is one of this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listening(text: str | None) -> str | None:
    if text:
        host_and_port(text)
    return text


def _partition_list(text: str | None) -> str | None:
    return text and ",".join(map(str, _numbers(text)))


class Settings(BaseSettings):
    """The settings of an operator. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    secrets: ClassVar[dict[str, tuple[str, ...]]] = {"redis_url": (_OTHER_URL, "REDIS_URL")}
    """Settings that may be secret, such as a URL with a password, with the variables that set each, the one
    that takes precedence first. Their values are not shown, and `NAME_FILE` may name a file with the value.
    """

    redis_url: Annotated[str, AfterValidator(_redis_url)] = Field(
        default="redis://localhost:6379/0",
        validation_alias=AliasChoices(_OTHER_URL, "REDIS_URL"),
        description="The server: `redis://`, `rediss://` (TLS), `unix://`, `redis+cluster://host,host` or "
        "`redis+sentinel://host,host/name`. `DELTALOOM_REDIS_URL` takes precedence. "
        "`REDIS_URL_FILE` and `DELTALOOM_REDIS_URL_FILE` name a file with the URL instead.",
    )
    redis_mode: Mode | None = Field(
        default=None,
        description="The mode of the server: `standalone`, `cluster` or `sentinel`; unset: as in the URL.",
    )
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default="deltaloom", description="Prefix of all streams and keys."
    )
    partitions: int = Field(
        default=0,
        ge=0,
        le=MAX_PARTITIONS,
        description="Number of partitions of the streams; 0: a single one, with no braces in its names. "
        "Producers need the same value.",
    )
    serve_partitions: Annotated[str | None, NoDecode, AfterValidator(_partition_list)] = Field(
        default=None,
        description="Partitions that this worker serves, like `0-3` or `0,2,5-7`; unset: all.",
    )
    handlers: Annotated[str | None, NoDecode, AfterValidator(lambda v: v if v is None else _names(v))] = (
        Field(
            default=None,
            description="Handlers to run, separated by commas; unset: all except `output_text`, `redacted`.",
        )
    )
    consumer: str = Field(
        default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}",
        min_length=1,
        description="Name of this process in the consumer group; unset: host, process id and a random part.",
    )
    processes: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Number of worker processes that `deltaloom worker` or `run` keeps running.",
    )
    batch_size: int = Field(
        default=10_000, ge=1, le=20_000, description="Maximum entries of a batch; fewer if they are large."
    )
    block_ms: int = Field(
        default=1000, ge=10, le=2000, description="Milliseconds that a read waits for its first entry."
    )
    linger_ms: float = Field(
        default=8,
        ge=0,
        le=1000,
        description="Milliseconds that a small batch waits for further entries; 0 to process it at once. "
        "A batch that begins or closes a refusal does not wait, nor does an entry that comes alone.",
    )
    max_event_bytes: int = Field(
        default=1024 * 1024,
        ge=1024,
        le=64 * 1024 * 1024,
        description="Maximum bytes of an event; an entry may have 8 times as many. "
        "A larger one becomes a dead letter.",
    )
    max_part_bytes: int = Field(
        default=8 * 1024 * 1024,
        ge=1024,
        description="Maximum bytes of a part; further events become dead letters.",
    )
    max_part_fragments: int = Field(
        default=500_000, ge=1, description="Maximum deltas of a part; further ones become dead letters."
    )
    max_response_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=1024,
        description="Maximum bytes of a response, without the first 64 KiB of each part; "
        "further events become dead letters.",
    )
    max_response_parts: int = Field(
        default=512,
        ge=1,
        le=100_000,
        description="Maximum parts of a response; events of further ones are only counted.",
    )
    max_array_length: int = Field(
        default=10_000,
        ge=1,
        le=100_000,
        description="Maximum events in an entry's array; a longer one becomes a dead letter.",
    )
    max_batch_bytes: int = Field(
        default=32 * 1024 * 1024, ge=1024, description="Maximum bytes of a commit; a larger batch is cut."
    )
    max_open_responses: int = Field(
        default=100_000,
        ge=1,
        description="Maximum open responses; beyond that, the longest idle are given up.",
    )
    idle_timeout: FiniteFloat = Field(
        default=120, gt=0, description="Seconds without an event after which an open text is given up."
    )
    sweep_interval: FiniteFloat = Field(
        default=1.0, gt=0, le=60, description="Seconds between two searches for idle or unfinished responses."
    )
    claim_time: FiniteFloat = Field(
        default=15, ge=1, description="Seconds after which another worker takes over unacknowledged entries."
    )
    max_deliveries: int = Field(
        default=5,
        ge=3,
        le=100,
        description="Maximum deliveries of an entry; after that it becomes a dead letter.",
    )
    retention: FiniteFloat = Field(
        default=7 * 86400,
        ge=60,
        le=LONGEST,
        description="Seconds for which texts, alerts and dead letters are kept in their streams.",
    )
    retention_bytes: int | None = Field(
        default=None,
        ge=1024 * 1024,
        description="Maximum bytes of these streams, in all partitions together: beyond it, the oldest "
        "entries that every group has acknowledged are removed before their time; unset: no limit. Finished "
        "items do not count: they expire after DELTALOOM_ITEM_TTL.",
    )
    retention_group: str | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Group of the outputs, such as `archive`, for which texts, alerts and deliveries stay "
        "beyond DELTALOOM_RETENTION and DELTALOOM_KIND_RETENTION until it has acknowledged them. Beyond "
        "DELTALOOM_RETENTION_BYTES they are not; without that setting, nothing limits them.",
    )
    trim_interval: FiniteFloat = Field(
        default=5,
        gt=0,
        le=3600,
        description="Seconds between two trims of the acknowledged entries of the input.",
    )
    state_ttl: FiniteFloat = Field(
        default=7 * 86400,
        ge=60,
        le=LONGEST,
        description="Seconds for which an open text is kept while no worker runs.",
    )
    marker_ttl: FiniteFloat | None = Field(
        default=None,
        ge=60,
        le=LONGEST,
        description="Seconds for which a finished text is remembered, at least as long as the text and its "
        "item are kept; unset: exactly as long.",
    )
    item_ttl: FiniteFloat = Field(
        default=7 * 86400, ge=60, le=LONGEST, description="Seconds for which finished items can be looked up."
    )
    kind_retention: Annotated[str | None, NoDecode, AfterValidator(_kind_retention)] = Field(
        default=None,
        description="Seconds for which some kinds are kept, like `reasoning=3600,reasoning_summary=3600`.",
    )
    spike_window: FiniteFloat = Field(
        default=300,
        ge=0,
        le=86400,
        description="Seconds of the window in which refusals are counted; 0: not at all.",
    )
    spike_baseline: FiniteFloat = Field(
        default=86400,
        ge=1,
        le=30 * 86400,
        description="Seconds of the baseline with which the window is compared.",
    )
    spike_responses: int = Field(
        default=50,
        ge=10,
        description="Minimum responses for a spike, both in the window and in the baseline.",
    )
    spike_ratio: FiniteFloat = Field(
        default=2,
        ge=1,
        description="Minimum ratio of the window's refusal share to the baseline's for a spike.",
    )
    spike_score: FiniteFloat = Field(
        default=5, ge=2, description="Minimum difference of both shares for a spike, in standard errors."
    )
    wait_replicas: int = Field(
        default=0,
        ge=0,
        le=10,
        description="Number of replicas that must have a batch before the next one is read.",
    )
    wait_aof: bool = Field(
        default=False,
        description="Wait until a batch is in the append-only file on disk before the next one is read.",
    )
    lease_time: FiniteFloat = Field(
        default=10,
        ge=1,
        le=300,
        description="Seconds without a sign of life after which another relay takes over a destination.",
    )
    shutdown_timeout: FiniteFloat = Field(default=10, gt=0, description="Maximum seconds of a shutdown.")
    http: Annotated[str | None, NoDecode, AfterValidator(_listening)] = Field(
        default=None,
        description="Address of the HTTP server for health, metrics and status, like `127.0.0.1:9464` or "
        "`[::1]:9464`; unset: none.",
    )
    http_token_file: Path | None = Field(
        default=None,
        description="File with the token that `/statusz` requires if `DELTALOOM_HTTP` is not a loopback "
        "address.",
    )
    heartbeat_file: Path | None = Field(
        default=None,
        description="File that a process renews every second while its loop turns, for probes; unset: in a "
        "private folder in memory.",
    )
    log_level: LogLevel = Field(default="info", description="Lowest level of log lines that are written.")
    log_level_file: Path | None = Field(
        default=None,
        description="File with a log level that takes precedence; read at start and on SIGHUP. "
        "If it is missing or empty: `DELTALOOM_LOG_LEVEL`.",
    )
    log_format: Literal["auto", "pretty", "json"] = Field(
        default="auto", description="Format of log lines; `auto`: `pretty` on a terminal, else `json`."
    )
    log_text: bool = Field(
        default=False, description="Also log the texts of models, which may contain personal data."
    )
    log_burst: int = Field(
        default=100,
        ge=0,
        description="Maximum log lines of one level and event in 10 seconds, and twice as many errors; "
        "further ones are counted in one line. 0: no limit.",
    )

    @model_validator(mode="after")
    def _check_address(self) -> Self:
        try:
            mode = self.address.mode
        except ValueError as error:
            raise ValueError(f"{url_variable()}=(not shown) is not allowed: {error}") from None
        if mode != "cluster":
            return self
        if not self.partitions:
            raise ValueError(
                "DELTALOOM_PARTITIONS=0 is not allowed: in a cluster all keys of a partition must share a "
                "slot, so they need the number of the partition in braces; set it to 1 or more"
            )
        if self.wait_replicas or self.wait_aof:
            waits = "WAIT_REPLICAS" if self.wait_replicas else "WAIT_AOF"
            raise ValueError(
                f"DELTALOOM_{waits} is not allowed in a cluster: WAIT covers one connection to one node, "
                "and a cluster has several; set min-replicas-to-write or appendfsync always on the servers"
            )
        return self

    @model_validator(mode="after")
    def _check_served_partitions(self) -> Self:
        if self.serve_partitions is not None:
            allowed = f"partitions from 0 to {self.partitions - 1}, of DELTALOOM_PARTITIONS={self.partitions}"
            if not self.partitions:
                allowed = "there are no partitions; set DELTALOOM_PARTITIONS first"
            if _numbers(self.serve_partitions)[-1] >= self.partitions:
                name = variable("serve_partitions")
                raise ValueError(f"{name}={self.serve_partitions!r} is not allowed: {allowed}")
        return self

    @model_validator(mode="after")
    def _check_marker_ttl(self) -> Self:
        for kept in ("item_ttl", "retention"):
            seconds = getattr(self, kept)
            if self.marker_ttl is not None and self.marker_ttl < seconds:
                marker = f"{variable('marker_ttl')}={self.marker_ttl:.15g}"
                raise ValueError(
                    f"{marker} is not allowed: at least {variable(kept)}={seconds:.15g}, else a "
                    "repeated event would write a second text with the id of an existing one"
                )
        return self

    @model_validator(mode="after")
    def _check_state_ttl(self) -> Self:
        if self.state_ttl <= self.idle_timeout:
            raise ValueError(
                f"{variable('state_ttl')}={self.state_ttl:.15g} is not allowed: more than "
                f"{variable('idle_timeout')}={self.idle_timeout:.15g}, else open texts would expire unnoticed"
            )
        return self

    @model_validator(mode="after")
    def _check_kind_retention(self) -> Self:
        longest = max(self.retention, self.item_ttl)
        for kind, seconds in self.kind_retentions.items():
            if seconds > longest:
                name = f"{variable('kind_retention')}={self.kind_retention!r}"
                raise ValueError(
                    f"{name} is not allowed: {kind} is removed after {longest:g} seconds in any case "
                    f"({variable('retention')}, {variable('item_ttl')})"
                )
        return self

    @model_validator(mode="after")
    def _check_spike_baseline(self) -> Self:
        if self.spike_baseline < 2 * self.spike_window:
            baseline = f"{variable('spike_baseline')}={self.spike_baseline:g}"
            window = f"{variable('spike_window')}={self.spike_window:g}"
            raise ValueError(f"{baseline} is not allowed: at least twice {window}")
        return self

    @property
    def kind_retentions(self) -> Mapping[str, float]:
        """The retention by kind in seconds; other kinds have the general retention."""
        return _seconds_by_kind(self.kind_retention) if self.kind_retention else {}

    @property
    def remembered(self) -> float:
        """TTL in seconds of the marker of a finished text."""
        return max(self.item_ttl, self.retention) if self.marker_ttl is None else self.marker_ttl

    @property
    def address(self) -> Address:
        """The parsed address of Redis."""
        return Address.parse(self.redis_url, self.redis_mode)

    @property
    def names(self) -> Partitions:
        """The names of all partitions."""
        return Partitions(self.partitions, self.prefix)

    @property
    def served(self) -> tuple[StreamNames, ...]:
        """The names of the partitions that this worker serves."""
        every = self.names.all
        if self.serve_partitions is None:
            return every
        return tuple(every[number] for number in _numbers(self.serve_partitions))

    @classmethod
    def read(cls, **overrides: Any) -> Self:
        """Read the environment; `overrides` take precedence.

        Raises:
            SettingsError: one line for each invalid variable.
        """
        try:
            return cls(**{**_from_files(cls.secrets), **overrides})
        except SecretFileError as error:
            raise SettingsError(str(error)) from None
        except ValidationError as error:
            errors = error.errors(include_url=False)
            raise SettingsError("\n".join(_line(each, cls.secrets) for each in errors)) from None


def variable(name: str) -> str:
    """Return the name of a setting's environment variable."""
    return "REDIS_URL" if name == "redis_url" else f"{ENV_PREFIX}{name.upper()}"


def url_variable() -> str:
    """Return the name of the variable that sets the URL of Redis; `REDIS_URL` if none does."""
    return _set_one_of(Settings.secrets["redis_url"]) or "REDIS_URL"


def _from_files(secrets: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return the secret settings that are in files.

    Raises:
        SecretFileError: a file cannot be used, or its setting is also in a variable.
    """
    found: dict[str, str] = {}
    for setting, names in secrets.items():
        for name in names:
            value = secret_of(name, os.environ)
            if value is not None:
                if os.environ.get(file_variable(name)):
                    found[setting] = value
                break
    return found


def _set_one_of(names: Iterable[str]) -> str | None:
    """Return the first variable that sets a secret, or names its file; None if there is none."""
    return next(
        filter(os.environ.get, (each for name in names for each in (name, file_variable(name)))), None
    )


def _line(error: ErrorDetails, secrets: Mapping[str, Iterable[str]]) -> str:
    allowed = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not error["loc"]:  # about several variables: already a whole line
        return allowed
    field = str(error["loc"][0]).removeprefix(ENV_PREFIX).lower()
    value = "(not shown)" if field in secrets else repr(error["input"])
    name = (field in secrets and _set_one_of(secrets[field])) or variable(field)
    return f"{name}={value} is not allowed: {allowed}"
