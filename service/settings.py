"""Settings: read once from `DELTALOOM_*` (and `REDIS_URL`), validated, frozen."""

from __future__ import annotations

import os
import re
import socket
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, AliasChoices, Field, FiniteFloat, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from deltaloom.messages import KnownKind
from deltaloom.streams import Partitions
from service.address import Address, Mode, scheme_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from pydantic_core import ErrorDetails

    from deltaloom.streams import StreamNames

ENV_PREFIX = "DELTALOOM_"
_OTHER_URL = "DELTALOOM_REDIS_URL"  # wins over REDIS_URL, which other programs may share
_HIDDEN = ("redis_url",)  # an URL may hold a password

PARTITIONS_AT_MOST = 1024
"""Each costs a worker that serves it a connection and some rounds."""


KINDS: tuple[str, ...] = get_args(KnownKind)
LONGEST = 100 * 365 * 86400
"""Seconds: a century. Far longer times are beyond what Redis takes."""

SHORTEST_RETENTION = 60
"""Seconds. The clocks of a server and of its successor may differ by some."""


class SettingsError(ValueError):
    """The operator set a variable to a value that is not allowed: one line for each, with the remedy."""


def _names(text: str) -> str:
    return ",".join(name.strip() for name in text.split(",") if name.strip())


def _redis_url(url: str) -> str:
    scheme_of(url)  # the rest is judged together with what DELTALOOM_REDIS_MODE says
    return url


def _prefix(prefix: str) -> str:
    if not prefix or any(character.isspace() or character in "{}" for character in prefix):
        message = "at least one character, no white space, no braces"
        raise ValueError(message)
    return prefix


def _numbers(text: str) -> list[int]:
    """The numbers in `0,2,5-7`, in order; `ValueError` if it is not written so."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or int(last or first) < int(first):
            message = "numbers and ranges of partitions, like 0-3 or 0,2,5-7"
            raise ValueError(message)
        if int(last or first) >= PARTITIONS_AT_MOST:
            message = f"partitions from 0 to {PARTITIONS_AT_MOST - 1}"
            raise ValueError(message)
        numbers.update(range(int(first), int(last or first) + 1))
    return sorted(numbers)


def _seconds_by_kind(text: str) -> dict[str, int]:
    """Return the seconds in `reasoning=3600,refusal=86400`; `ValueError` if it is not written so."""
    seconds: dict[str, int] = {}
    for part in text.split(","):
        kind, _, number = (word.strip() for word in part.partition("="))
        if kind not in KINDS:
            raise ValueError(f"kind=seconds, separated by commas; kinds are {', '.join(KINDS)}")
        if kind in seconds:
            raise ValueError(f"{kind} once only")
        if not re.fullmatch("[0-9]{1,9}", number) or int(number) < SHORTEST_RETENTION:
            raise ValueError(f"{kind}=seconds, whole and at least {SHORTEST_RETENTION}")
        seconds[kind] = int(number)
    return seconds


def _kind_retention(text: str | None) -> str | None:
    return text and ",".join(f"{kind}={seconds}" for kind, seconds in _seconds_by_kind(text).items())


def _partition_list(text: str | None) -> str | None:
    return text and ",".join(map(str, _numbers(text)))


class Settings(BaseSettings):
    """What an operator can set. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    redis_url: Annotated[str, AfterValidator(_redis_url)] = Field(
        default="redis://localhost:6379/0",
        validation_alias=AliasChoices(_OTHER_URL, "REDIS_URL"),
        description="The server: `redis://`, `rediss://` (TLS), `unix://`, `redis+cluster://host,host` or "
        "`redis+sentinel://host,host/name`; `DELTALOOM_REDIS_URL` wins.",
    )
    redis_mode: Mode | None = Field(
        default=None,
        description="What is at the URL: `standalone`, `cluster` or `sentinel`; unset: what it says.",
    )
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default="deltaloom", description="What every stream and key begins with."
    )
    partitions: int = Field(
        default=0,
        ge=0,
        le=PARTITIONS_AT_MOST,
        description="Into how many partitions the streams are cut; 0: one, and its names have no braces. "
        "Producers have to know it too.",
    )
    serve_partitions: Annotated[str | None, NoDecode, AfterValidator(_partition_list)] = Field(
        default=None,
        description="Partitions that this worker serves, like `0-3` or `0,2,5-7`; unset: all.",
    )
    handlers: Annotated[str | None, NoDecode, AfterValidator(lambda v: v if v is None else _names(v))] = (
        Field(
            default=None,
            description="Handlers to run, separated by commas; unset: all but `output_text` and `redacted`.",
        )
    )
    consumer: str = Field(
        default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}",
        min_length=1,
        description="This process's name in the consumer group; unset: host, process id and a random part.",
    )
    processes: int = Field(
        default=1,
        ge=1,
        le=256,
        description="Worker processes that `deltaloom worker`, or `run`, keeps running.",
    )
    batch_size: int = Field(
        default=10_000, ge=1, le=20_000, description="Entries read at once; fewer if they are large."
    )
    block_ms: int = Field(
        default=1000, ge=10, le=2000, description="Milliseconds a read waits for the first entry."
    )
    max_event_bytes: int = Field(
        default=1024 * 1024,
        ge=1024,
        le=64 * 1024 * 1024,
        description="Largest event; a larger one is a dead letter, and so is an entry of 8 times that.",
    )
    max_part_bytes: int = Field(
        default=8 * 1024 * 1024, ge=1024, description="Largest part; what goes beyond is a dead letter."
    )
    max_part_fragments: int = Field(
        default=500_000, ge=1, description="Most deltas of a part; what goes beyond is a dead letter."
    )
    max_response_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=1024,
        description="Bytes of a response, but for 64 KiB of each part; what goes beyond is a dead letter.",
    )
    max_response_parts: int = Field(
        default=512, ge=1, le=100_000, description="Parts of one response at most; further ones are counted."
    )
    max_array_length: int = Field(
        default=10_000,
        ge=1,
        le=100_000,
        description="Most events in an entry's array; a longer one is a dead letter.",
    )
    max_batch_bytes: int = Field(
        default=32 * 1024 * 1024, ge=1024, description="Bytes committed at once; a larger batch is cut."
    )
    max_open_responses: int = Field(
        default=100_000, ge=1, description="Most responses open at once; the longest silent are given up."
    )
    idle_timeout: FiniteFloat = Field(
        default=120, gt=0, description="An open text is given up when nothing came for so long."
    )
    sweep_interval: FiniteFloat = Field(
        default=1.0, gt=0, le=60, description="How often to look for what is idle or was left over."
    )
    claim_time: FiniteFloat = Field(
        default=15, ge=1, description="Entries unacknowledged for so long are taken over by another worker."
    )
    max_deliveries: int = Field(
        default=5, ge=3, le=100, description="An entry delivered so often without an end is a dead letter."
    )
    retention: FiniteFloat = Field(
        default=7 * 86400,
        ge=60,
        le=LONGEST,
        description="How long texts, alerts and dead letters stay in their streams.",
    )
    trim_interval: FiniteFloat = Field(
        default=5, gt=0, le=3600, description="How often the input is trimmed behind what is acknowledged."
    )
    state_ttl: FiniteFloat = Field(
        default=7 * 86400,
        ge=60,
        le=LONGEST,
        description="How long an open text is kept while no worker runs.",
    )
    marker_ttl: FiniteFloat | None = Field(
        default=None,
        ge=60,
        le=LONGEST,
        description="How long a finished text is remembered; unset: as long as anything of it is kept. "
        "Less is not allowed.",
    )
    item_ttl: FiniteFloat = Field(
        default=7 * 86400, ge=60, le=LONGEST, description="How long finished items can be looked up."
    )
    kind_retention: Annotated[str | None, NoDecode, AfterValidator(_kind_retention)] = Field(
        default=None,
        description="How long texts of some kinds are kept, like `reasoning=3600,reasoning_summary=3600`.",
    )
    spike_window: FiniteFloat = Field(
        default=300, ge=0, le=86400, description="The window in which refusals are counted; 0: they are not."
    )
    spike_baseline: FiniteFloat = Field(
        default=86400, ge=1, le=30 * 86400, description="The time before it that a window is compared with."
    )
    spike_responses: int = Field(
        default=50, ge=10, description="Fewer responses in a window, or before it, make no spike."
    )
    spike_ratio: FiniteFloat = Field(
        default=2, ge=1, description="So many times its baseline's share of refusals makes a spike, at least."
    )
    spike_score: FiniteFloat = Field(
        default=5, ge=2, description="So many standard errors above its baseline makes a spike, at least."
    )
    wait_replicas: int = Field(
        default=0, ge=0, le=10, description="Replicas that must have a batch before the next one is read."
    )
    wait_aof: bool = Field(
        default=False,
        description="A batch must be in the append-only file, on disk, before the next one is read.",
    )
    lease_time: FiniteFloat = Field(
        default=10,
        ge=1,
        le=300,
        description="How long the relay that sends to a destination is waited for when it is not heard of.",
    )
    shutdown_timeout: FiniteFloat = Field(default=10, gt=0, description="How long a stop may take.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe lines to log."
    )
    log_format: Literal["auto", "pretty", "json"] = Field(
        default="auto", description="`auto`: pretty on a terminal, JSON otherwise."
    )
    log_text: bool = Field(default=False, description="Log the texts of models too. They are people's words.")

    @model_validator(mode="after")
    def _finds_the_server(self) -> Self:
        try:
            mode = self.address.mode
        except ValueError as error:
            raise ValueError(f"{_url_variable()}=(not shown) is not allowed: {error}") from None
        if mode != "cluster":
            return self
        if not self.partitions:
            raise ValueError(
                "DELTALOOM_PARTITIONS=0 is not allowed: in a cluster all keys of a partition must share a "
                "slot, and only those with its number in braces do; set it to 1 or more"
            )
        if self.wait_replicas or self.wait_aof:
            waits = "WAIT_REPLICAS" if self.wait_replicas else "WAIT_AOF"
            raise ValueError(
                f"DELTALOOM_{waits} is not allowed in a cluster: WAIT speaks of one connection to one node, "
                "and there are several; let the servers have min-replicas-to-write, or appendfsync always"
            )
        return self

    @model_validator(mode="after")
    def _serves_what_is_there(self) -> Self:
        if self.serve_partitions is not None:
            allowed = f"partitions from 0 to {self.partitions - 1}, of DELTALOOM_PARTITIONS={self.partitions}"
            if not self.partitions:
                allowed = "there are no partitions; DELTALOOM_PARTITIONS says how many"
            if _numbers(self.serve_partitions)[-1] >= self.partitions:
                name = variable("serve_partitions")
                raise ValueError(f"{name}={self.serve_partitions!r} is not allowed: {allowed}")
        return self

    @model_validator(mode="after")
    def _remembers_what_it_keeps(self) -> Self:
        for kept in ("item_ttl", "retention"):
            seconds = getattr(self, kept)
            if self.marker_ttl is not None and self.marker_ttl < seconds:
                marker = f"{variable('marker_ttl')}={self.marker_ttl:.15g}"
                raise ValueError(
                    f"{marker} is not allowed: at least {variable(kept)}={seconds:.15g}, or an event that "
                    "comes again would write a second text under the id of one that is still there"
                )
        return self

    @model_validator(mode="after")
    def _keeps_what_is_open(self) -> Self:
        if self.state_ttl <= self.idle_timeout:
            raise ValueError(
                f"{variable('state_ttl')}={self.state_ttl:.15g} is not allowed: more than "
                f"{variable('idle_timeout')}={self.idle_timeout:.15g}, or open texts would expire unseen"
            )
        return self

    @model_validator(mode="after")
    def _keeps_no_kind_for_longer(self) -> Self:
        longest = max(self.retention, self.item_ttl)
        for kind, seconds in self.kind_retentions.items():
            if seconds > longest:
                name = f"{variable('kind_retention')}={self.kind_retention!r}"
                raise ValueError(
                    f"{name} is not allowed: {kind} is gone after {longest:g} seconds anyway "
                    f"({variable('retention')}, {variable('item_ttl')})"
                )
        return self

    @model_validator(mode="after")
    def _compares_with_more_than_a_window(self) -> Self:
        if self.spike_baseline < 2 * self.spike_window:
            baseline = f"{variable('spike_baseline')}={self.spike_baseline:g}"
            window = f"{variable('spike_window')}={self.spike_window:g}"
            raise ValueError(f"{baseline} is not allowed: at least twice {window}")
        return self

    @property
    def kind_retentions(self) -> Mapping[str, float]:
        """Seconds for which texts are kept, by kind; the other settings hold for all other kinds."""
        return _seconds_by_kind(self.kind_retention) if self.kind_retention else {}

    @property
    def remembered(self) -> float:
        """Seconds for which a finished text is remembered."""
        return max(self.item_ttl, self.retention) if self.marker_ttl is None else self.marker_ttl

    @property
    def address(self) -> Address:
        """Where Redis is."""
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
    def read(cls, **overrides: Any) -> Settings:
        """Read the environment; `SettingsError` names every variable that is wrong."""
        try:
            return cls(**overrides)
        except ValidationError as error:
            raise SettingsError("\n".join(map(_line, error.errors(include_url=False)))) from None


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return "REDIS_URL" if name == "redis_url" else f"{ENV_PREFIX}{name.upper()}"


def _line(error: ErrorDetails) -> str:
    allowed = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if not error["loc"]:  # about several, and a whole line already
        return allowed
    field = str(error["loc"][0]).removeprefix(ENV_PREFIX).lower()
    value = "(not shown)" if field in _HIDDEN else repr(error["input"])
    name = variable(field)
    if field == "redis_url":
        name = _url_variable()
    return f"{name}={value} is not allowed: {allowed}"


def _url_variable() -> str:
    return _OTHER_URL if _OTHER_URL in os.environ else "REDIS_URL"
