"""Settings: read once from `DELTALOOM_*` (and `REDIS_URL`), validated, frozen."""

from __future__ import annotations

import os
import socket
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, Field, FiniteFloat, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

ENV_PREFIX = "DELTALOOM_"
_OTHER_URL = "DELTALOOM_REDIS_URL"  # wins over REDIS_URL, which other programs may share
_HIDDEN = ("redis_url",)  # an URL may hold a password


class SettingsError(ValueError):
    """The operator set a variable to a value that is not allowed: one line for each, with the remedy."""


def _names(text: str) -> str:
    return ",".join(name.strip() for name in text.split(",") if name.strip())


def _redis_url(url: str) -> str:
    if not url.startswith(("redis://", "rediss://", "unix://")):
        message = "an URL that starts with redis://, rediss:// or unix://"
        raise ValueError(message)
    try:
        urlsplit(url).port  # noqa: B018 - it is read when it is asked for
    except ValueError:
        message = "an URL with a port from 0 to 65535"
        raise ValueError(message) from None
    return url


def _prefix(prefix: str) -> str:
    if not prefix or any(character.isspace() or character in "{}" for character in prefix):
        message = "at least one character, no white space, no braces"
        raise ValueError(message)
    return prefix


class Settings(BaseSettings):
    """What an operator can set. Times are in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    redis_url: Annotated[str, AfterValidator(_redis_url)] = Field(
        default="redis://localhost:6379/0",
        validation_alias=AliasChoices(_OTHER_URL, "REDIS_URL"),
        description="The server: `redis://`, `rediss://` (TLS) or `unix://`; `DELTALOOM_REDIS_URL` wins.",
    )
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default="deltaloom", description="What every stream and key begins with."
    )
    handlers: Annotated[str | None, NoDecode, AfterValidator(lambda v: v if v is None else _names(v))] = (
        Field(
            default=None,
            description="Handlers to run, separated by commas; unset: all but `output_text`.",
        )
    )
    consumer: str = Field(
        default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}",
        min_length=1,
        description="This process's name in the consumer group; unset: host, process id and a random part.",
    )
    batch_size: int = Field(default=500, ge=1, le=5000, description="Entries read at once.")
    block_ms: int = Field(
        default=1000, ge=10, le=2000, description="Milliseconds a read waits for the first entry."
    )
    max_event_bytes: int = Field(
        default=1024 * 1024, ge=1024, description="Largest event; a larger one is a dead letter."
    )
    max_part_bytes: int = Field(
        default=8 * 1024 * 1024, ge=1024, description="Largest part; what goes beyond is a dead letter."
    )
    max_part_fragments: int = Field(
        default=500_000, ge=1, description="Most deltas of a part; what goes beyond is a dead letter."
    )
    max_array_length: int = Field(
        default=10_000, ge=1, description="Most events in an entry's array; a longer one is a dead letter."
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
        default=7 * 86400, ge=60, description="How long texts, alerts and dead letters stay in their streams."
    )
    trim_interval: FiniteFloat = Field(
        default=5, gt=0, le=3600, description="How often the input is trimmed behind what is acknowledged."
    )
    state_ttl: FiniteFloat = Field(
        default=7 * 86400, ge=60, description="How long an open text is kept while no worker runs."
    )
    marker_ttl: FiniteFloat = Field(
        default=86400, ge=60, description="How long it is remembered that a text is finished."
    )
    item_ttl: FiniteFloat = Field(
        default=7 * 86400, ge=60, description="How long finished items can be looked up."
    )
    wait_replicas: int = Field(
        default=0, ge=0, le=10, description="Replicas that must have a batch before the next one is read."
    )
    wait_aof: bool = Field(
        default=False,
        description="A batch must be in the append-only file, on disk, before the next one is read.",
    )
    shutdown_timeout: FiniteFloat = Field(default=10, gt=0, description="How long a stop may take.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe lines to log."
    )
    log_format: Literal["auto", "pretty", "json"] = Field(
        default="auto", description="`auto`: pretty on a terminal, JSON otherwise."
    )
    log_text: bool = Field(default=False, description="Log the texts of models too. They are people's words.")

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
    field = str(error["loc"][0]).removeprefix(ENV_PREFIX).lower()
    value = "(not shown)" if field in _HIDDEN else repr(error["input"])
    allowed = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    name = variable(field)
    if field == "redis_url" and _OTHER_URL in os.environ:
        name = _OTHER_URL
    return f"{name}={value} is not allowed: {allowed}"
