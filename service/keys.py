"""Every key the worker keeps for itself, beside the public names of the contract.

| key                       | type   | what                                         | goes away        |
|---------------------------|--------|----------------------------------------------|------------------|
| `state:<stream key>`      | hash   | a response: parts, context, endings          | TTL              |
| `log:<stream key>:<part>` | string | an open part's set of events, in chunks      | finished, or TTL |
| `open`                    | zset   | responses not over, by latest entry's ms     | ended, or idle   |
| `waiting`                 | zset   | responses in doubt, by closing entry's ms    | settled          |
| `done:<digest>`           | string | a response that is over: digests of texts    | TTL              |
| `owners`                  | hash   | responses of large pending entries           | acknowledged     |
| `counts`                  | hash   | events without effect: by type, or late      | bounded in size  |
| `counted-types`           | zset   | weights of the types in `counts`             | bounded in size  |
| `counted-fields`          | zset   | weights of the fields left out in `counts`   | bounded in size  |
| `format`                  | hash   | the format of the state                      | stays: 3 fields  |
| `kind-retention`          | hash   | how far streams were searched for a kind     | TTL              |
| `spikes`                  | hash   | what is refused far more than before         | TTL              |
| `provider-spikes`         | hash   | the same for providers                       | TTL              |
| `spike-turn`              | string | who looked for spikes last                   | TTL              |
| `rates:<width>:<start>`   | hash   | responses that ended in some ms, and refused | TTL              |
| `rate-names:<width>:<…>`  | zset   | weights of the names that these count for    | TTL              |

And those of the relay; of all partitions in the first, where there are several.

| key                       | type   | what                                         | goes away        |
|---------------------------|--------|----------------------------------------------|------------------|
| `relay:<name>:lease`      | string | who sends to a destination                   | TTL              |
| `relay:<name>:digests`    | hash   | which alerts became one message              | delivered, or TTL|
| `gone`                    | hash   | destinations that said they are no more      | one each         |

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
"""Bytes of the digest in a marker's key: 20 characters, without padding."""

OTHER = "(other)"
"""The name of all whose own is not kept, because there are too many."""

LEFT_OUT = "left_out:"
"""How the name of a count begins that says how often a field was left out; type and field follow."""

BEYOND_LIMIT = "parts_beyond_limit"
"""The name of the count of events whose parts were too many of their response."""

LATE = "late"
"""The name of the count of events that came for finished texts."""

SET_ASIDE = "set_aside"
"""The name of the count of responses that cannot be settled."""

LOG = "log:"
"""How a log's key begins, after the prefix; the response and the part follow."""


_TYPES = {
    **dict.fromkeys(("deltas", "assembled", "alerts", "dead-letters", "undelivered"), "stream"),
    **dict.fromkeys(("state", "item", "rates", "counts", "format", "kind-retention", "owners"), "hash"),
    **dict.fromkeys(("spikes", "provider-spikes", "relay", "gone"), "hash"),
    **dict.fromkeys(("open", "waiting", "counted-types", "counted-fields", "rate-names"), "zset"),
}


def type_of(key: str) -> str:
    """Return the type that a key of ours should have, by its name."""
    heads = key.split(":")[1:]
    if heads[-1] == "lease":
        return "string"
    return next((_TYPES[head] for head in heads if head in _TYPES), "string")


@dataclass(frozen=True, slots=True)
class Keys:
    """The worker's own keys of one partition."""

    names: StreamNames

    @property
    def open(self) -> str:
        """Responses with something open."""
        return self.names.name("open")

    @property
    def waiting(self) -> str:
        """Responses with something closed that waits for the low-water mark."""
        return self.names.name("waiting")

    @property
    def owners(self) -> str:
        """The responses of large pending entries: no text of another response waits for these."""
        return self.names.name("owners")

    @property
    def counts(self) -> str:
        """Events acknowledged without effect."""
        return self.names.name("counts")

    @property
    def counted_types(self) -> str:
        """The types in the counts, by how often they come."""
        return self.names.name("counted-types")

    @property
    def counted_fields(self) -> str:
        """The fields left out in the counts, by how often they come."""
        return self.names.name("counted-fields")

    @property
    def format(self) -> str:
        """The note of the state's format."""
        return self.names.name("format")

    @property
    def kind_retention(self) -> str:
        """How far each output was searched for texts of kinds that have a retention of their own."""
        return self.names.name("kind-retention")

    def rates(self, width_ms: int, start_ms: int) -> str:
        """The responses that were over within so many milliseconds, from then on."""
        return self.names.name(f"rates:{width_ms}:{start_ms}")

    def rate_names(self, width_ms: int, start_ms: int) -> str:
        """The models, tenants and providers in a bucket of rates, by how often they come."""
        return self.names.name(f"rate-names:{width_ms}:{start_ms}")

    @property
    def spikes(self) -> str:
        """What is refused far more than before: of all partitions, in the first."""
        return self.names.name("spikes")

    @property
    def provider_spikes(self) -> str:
        """The same for providers, in a key of its own: workers of v0.1.0 would take them for tenants."""
        return self.names.name("provider-spikes")

    @property
    def spike_turn(self) -> str:
        """That a worker has looked for spikes just now: of all partitions, in the first."""
        return self.names.name("spike-turn")

    def state(self, stream_key: StreamKey) -> str:
        """A response."""
        return self.names.name(f"state:{stream_key}")

    def marker(self, stream_key: StreamKey) -> str:
        """Return the key of the marker of a response that is over; it is short, however long the id is."""
        name = str(stream_key).encode("utf-8", "surrogatepass")
        digest = blake2b(name, digest_size=_MARKER_DIGEST_BYTES).digest()
        return self.names.name(f"done:{urlsafe_b64encode(digest).decode()}")

    def log(self, part: PartKey) -> str:
        """An open part's set."""
        return self.names.name(f"{LOG}{part.stream_key}:{part.field}")

    def item(self, part: PartKey) -> str:
        """The public hash of a finished item."""
        return self.names.item(part.stream_key.value, part.output_index)


@dataclass(frozen=True, slots=True)
class RelayKeys:
    """The relay's keys for one destination."""

    names: StreamNames
    """Of the first partition."""
    destination: str

    @property
    def lease(self) -> str:
        """Who sends to it."""
        return self.names.name(f"relay:{self.destination}:lease")

    @property
    def digests(self) -> str:
        """Digests on their way to it."""
        return self.names.name(f"relay:{self.destination}:digests")

    @property
    def gone(self) -> str:
        """The destinations that are no more: this one or others."""
        return self.names.name("gone")
