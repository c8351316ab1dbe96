"""The private keys of the worker and the relay, in addition to the public names of the contract.

| key                       | type   | content                                      | removed by       |
|---------------------------|--------|----------------------------------------------|------------------|
| `state:<stream key>`      | hash   | a response: parts, context, endings          | TTL              |
| `log:<stream key>:<part>` | string | an open part's set of events, in chunks      | its end, or TTL  |
| `open`                    | zset   | open responses, by ms of last activity (1)   | end, or idleness |
| `waiting`                 | zset   | unsettled responses, by ms of first closing  | settlement       |
| `done:<digest>`           | string | marker of a response that is over            | TTL              |
| `owners`                  | hash   | responses of large pending entries           | acknowledgement  |
| `counts`                  | hash   | events without effect: by type, or late      | (bounded)        |
| `counted-types`           | zset   | weights of the types in `counts`             | (bounded)        |
| `counted-fields`          | zset   | weights of the fields left out in `counts`   | (bounded)        |
| `format`                  | hash   | the format of the state                      | (3 fields)       |
| `kind-retention`          | hash   | progress of the retention by kind            | TTL              |
| `spikes`                  | hash   | current spikes of models and tenants         | TTL              |
| `provider-spikes`         | hash   | current spikes of providers                  | TTL              |
| `spike-turn`              | string | the worker with the right to look for spikes | TTL              |
| `draining`                | string | the request that workers stop reading        | TTL, `--resume`  |
| `figures:lease`           | string | the worker that exports the group's figures  | its end, or TTL  |
| `rates:<width>:<start>`   | hash   | responses that ended in a bucket of time     | TTL              |
| `rate-names:<width>:<…>`  | zset   | weights of the names in such a bucket        | TTL              |

(1) Up to a second too late: see `IDLE_GRAIN_MS`.

The relay's keys; with several partitions, the first one has those for all.

| key                       | type   | content                                      | removed by       |
|---------------------------|--------|----------------------------------------------|------------------|
| `relay:<name>:lease`      | string | the process that sends to a destination      | TTL              |
| `relay:<name>:digests`    | hash   | the alerts in each digest                    | delivery, or TTL |
| `gone`                    | hash   | disabled destinations                        | `alerts enable`  |

The fields of a state are described in `commit.lua`.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deltaloom.streams import StreamNames
    from handlers.core.identity import PartKey, StreamKey


_MARKER_DIGEST_BYTES = 15
"""Bytes of the digest in a marker's key, which gives 20 characters of base64 without padding."""

OTHER = "(other)"
"""The name under which names beyond the limit are counted."""

LEFT_OUT = "left_out:"
"""Prefix of the name of a count of left-out fields; event type and field follow."""

BEYOND_LIMIT = "parts_beyond_limit"
"""The name of the count of events with parts beyond the limit of parts per response."""

LATE = "late"
"""The name of the count of deltas for finished texts."""

SET_ASIDE = "set_aside"
"""The name of the count of responses that were set aside, because they cannot be settled."""

LOG = "log:"
"""Beginning of a log's key, after the prefix; the response and the part follow."""


_TYPES = {
    **dict.fromkeys(("deltas", "assembled", "alerts", "deliveries", "dead-letters", "undelivered"), "stream"),
    **dict.fromkeys(("state", "item", "rates", "counts", "format", "kind-retention", "owners"), "hash"),
    **dict.fromkeys(("spikes", "provider-spikes", "relay", "gone"), "hash"),
    **dict.fromkeys(("open", "waiting", "counted-types", "counted-fields", "rate-names"), "zset"),
}


def type_of(key: str) -> str:
    """Return the Redis type of one of our keys, by its name."""
    heads = key.split(":")[1:]
    if heads[-1] == "lease":
        return "string"
    return next((_TYPES[head] for head in heads if head in _TYPES), "string")


@dataclass(frozen=True, slots=True)
class Keys:
    """The worker's private keys in one partition."""

    names: StreamNames

    @property
    def open(self) -> str:
        """The key of the open responses."""
        return self.names.name("open")

    @property
    def waiting(self) -> str:
        """The key of the responses that wait for the low-water mark."""
        return self.names.name("waiting")

    @property
    def owners(self) -> str:
        """The key of the responses of large pending entries, for which other responses do not wait."""
        return self.names.name("owners")

    @property
    def counts(self) -> str:
        """The key of the counts of events that were acknowledged without effect."""
        return self.names.name("counts")

    @property
    def counted_types(self) -> str:
        """The key of the event types in the counts, by frequency."""
        return self.names.name("counted-types")

    @property
    def counted_fields(self) -> str:
        """The key of the left-out fields in the counts, by frequency."""
        return self.names.name("counted-fields")

    @property
    def outputs(self) -> list[str]:
        """The output streams. The first three are those that archivers read: texts, alerts and deliveries."""
        names = self.names
        return [names.assembled, names.alerts, names.deliveries, names.dead_letters, names.undelivered]

    @property
    def format(self) -> str:
        """The key of the note of the state's format."""
        return self.names.name("format")

    @property
    def kind_retention(self) -> str:
        """The key of the progress of the retention by kind."""
        return self.names.name("kind-retention")

    def rates(self, width_ms: int, start_ms: int) -> str:
        """Return the key of a bucket: counts of responses that ended within `width_ms` from `start_ms` on."""
        return self.names.name(f"rates:{width_ms}:{start_ms}")

    def rate_names(self, width_ms: int, start_ms: int) -> str:
        """Return the key of the models, tenants and providers in a bucket, by frequency."""
        return self.names.name(f"rate-names:{width_ms}:{start_ms}")

    @property
    def spikes(self) -> str:
        """The key of the current spikes of models and tenants; used in the first partition only."""
        return self.names.name("spikes")

    @property
    def provider_spikes(self) -> str:
        """The key of the current spikes of providers, which workers of v0.1.0 would read as tenants."""
        return self.names.name("provider-spikes")

    @property
    def spike_turn(self) -> str:
        """The key of the right to look for spikes; used in the first partition only."""
        return self.names.name("spike-turn")

    @property
    def draining(self) -> str:
        """The key of the request that all workers stop reading; used in the first partition only."""
        return self.names.name("draining")

    @property
    def figures_lease(self) -> str:
        """The key of the lease to export the figures of the group; used in the first partition only."""
        return self.names.name("figures:lease")

    def state(self, stream_key: StreamKey) -> str:
        """Return the key of a response's state."""
        return self.names.name(f"state:{stream_key}")

    def marker(self, stream_key: StreamKey) -> str:
        """Return the key of a response's marker, which has a fixed length."""
        name = str(stream_key).encode("utf-8", "surrogatepass")
        digest = blake2b(name, digest_size=_MARKER_DIGEST_BYTES).digest()
        return self.names.name(f"done:{urlsafe_b64encode(digest).decode()}")

    def log(self, part: PartKey) -> str:
        """Return the key of a part's log."""
        return self.names.name(f"{LOG}{part.stream_key}:{part.field}")

    def item(self, part: PartKey) -> str:
        """Return the key of the public hash of a part's item."""
        return self.names.item(part.stream_key.value, part.output_index)


@dataclass(frozen=True, slots=True)
class RelayKeys:
    """The relay's keys for one destination."""

    names: StreamNames
    """The names of the first partition."""
    destination: str

    @property
    def lease(self) -> str:
        """The key of the lease to send to the destination."""
        return self.names.name(f"relay:{self.destination}:lease")

    @property
    def digests(self) -> str:
        """The key of the saved digests for the destination."""
        return self.names.name(f"relay:{self.destination}:digests")

    @property
    def disabled(self) -> str:
        """The key of the disabled destinations, shared by all destinations."""
        return self.names.name("gone")
