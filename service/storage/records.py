"""Encode and decode the values of a response's state, and the fields of a message's stream entry."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from deltaloom.messages import PLAIN_FIELDS, AssembledText, Message, ModerationAlert
from handlers.core.context import Register, RegisterName, Registers
from handlers.core.effects import (
    CONTEXT_NAMES,
    TRUNCATABLE,
    TRUNCATED,
    Checksum,
    Copy,
    Ending,
    ModelChange,
    Note,
)
from handlers.core.identity import Arrival, EntryId, PartKey, StreamKey
from handlers.core.state import ResponseState
from service import logs
from service.storage.part_codec import CorruptLogError, decode_log
from service.storage.text_bytes import from_bytes, to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from deltaloom.messages import DeadLetter, Delivery
    from handlers.core.part_log import PartLog

_Copy = tuple[str | None, int, int, str, bytes]
_Ending = tuple[int | None, str, str | None, list[_Copy]]

_AnyMessage = TypeVar("_AnyMessage", bound=Message)
_Value = TypeVar("_Value", str, bytes)


class _NoteRecord(msgspec.Struct, omit_defaults=True):
    """The stored form of a note: a map, so that later versions can add fields."""

    sha256: str | None = None
    bytes: int | None = None
    source: str = "provider"
    redacted: bool = False
    loss: bool = False
    status: str | None = None
    reason_class: str | None = None
    category: str | None = None
    explanation: str | None = None
    announced: list[_Copy] = []
    fallback: tuple[str | None, str | None, str | None] | None = None


_STATUS_OF_V0_1 = {"cancelled": "incomplete"}
"""Statuses that workers of v0.1.0 cannot read, each with the status that an ending stores in its place. The
note of the ending has the real one."""

_FLAT_MODELS = (AssembledText, ModerationAlert)
"""Models that `json_of` encodes from their attributes, which have the order and the values of their JSON.

A handler's subclass of one may differ, so the model itself writes its JSON.
"""

_LONG_ARRAY = 16
"""Number of values from which MessagePack writes the header of an array with three bytes instead of one."""

_encode = msgspec.msgpack.Encoder().encode
_encode_json = msgspec.json.Encoder().encode
_decode_ending = msgspec.msgpack.Decoder(_Ending).decode
_decode_marker = msgspec.msgpack.Decoder(list[Any]).decode
_decode_note = msgspec.msgpack.Decoder(_NoteRecord).decode


def pairs(flat: Sequence[_Value]) -> Iterator[tuple[_Value, _Value]]:
    """Return an iterator over the (name, value) pairs of a reply in which names and values alternate.

    Raises:
        ValueError: the reply has an odd length; raised after the last pair.
    """
    return zip(flat[::2], flat[1::2], strict=True)


def named(fields: Iterable[tuple[bytes, _Value]]) -> dict[str, _Value]:
    """Return a dict of the fields' values by their names, decoded as UTF-8.

    In a name that is not UTF-8, U+FFFD replaces the invalid bytes. Only other programs write such names.
    """
    return {name.decode(errors="replace"): value for name, value in fields}


def stamped(message: _AnyMessage, source: str) -> _AnyMessage:
    """Return a copy of a message with its `source` set to the key prefix `source`."""
    return message.model_copy(update={"source": source})


def json_of(message: AssembledText | ModerationAlert, source: str) -> str:
    """Return a message's JSON, byte for byte as its model writes it, with its `source` set to `source`.

    Raises:
        PydanticSerializationError: a text has a lone surrogate, which UTF-8 cannot encode.
    """
    if type(message) not in _FLAT_MODELS:
        return stamped(message, source).model_dump_json()
    values = {**message.__dict__, "source": source}
    version = values.pop("schema_version")
    try:
        return _encode_json({"schema": version, **values}).decode()
    except (TypeError, UnicodeEncodeError):  # the model writes rates, and says what is wrong with text
        return stamped(message, source).model_dump_json()


def entry_of(message: AssembledText | ModerationAlert | Delivery, json: str) -> list[str]:
    """Return the names and values, alternating, of the fields of a message's entry.

    The first field is `__data__`, which has the message's JSON `json` for FastStream. The others are the
    `PLAIN_FIELDS` that are not None, for other clients.
    """
    fields: list[str] = ["__data__", json]
    for name in PLAIN_FIELDS:
        value = getattr(message, name)
        if value is not None:
            fields += (name, value)
    return fields


def entry_of_alert(alert: ModerationAlert, source: str) -> list[str]:
    """Return the fields of an alert's entry as `entry_of` does, with the key prefix `source` in its JSON."""
    return entry_of(alert, json_of(alert, source))


def packed(fields: Sequence[str]) -> bytes:
    """Return an entry's names and values as consecutive MessagePack strings, without an array's header.

    A script decodes them to as many values, and so builds no table.
    """
    header = 1 if len(fields) < _LONG_ARRAY else 3
    return _encode(fields)[header:]


def entry_of_letter(letter: DeadLetter, source: str, *, without: str | None = None) -> list[str]:
    """Return the names and values, alternating, of the fields of a dead letter's entry.

    The field `source` has the key prefix `source`. Fields that are None are left out, and so is the field
    named `without`.
    """
    excluded = {without} if without else None
    fields = stamped(letter, source).model_dump(mode="json", exclude=excluded, exclude_none=True)
    return [str(text) for pair in fields.items() for text in pair]


def arrival_field(arrival: Arrival) -> str:
    """Return an arrival as it stands in the names of hash fields: `<ms>-<seq>:<position>`."""
    return f"{arrival.entry}:{arrival.position}"


def register_value(register: Register) -> str:
    """Return a register as the value of its hash field: its entry's id, a space, and its value.

    Sorted as bytes, these texts are in the order of the entries, the earliest first.
    """
    ms, seq = register.entry
    return f"{_sortable(ms)}-{_sortable(seq)} {register.value}"


def _sortable(number: int) -> str:
    """Return a number from 0 to 2**64 - 1 as text that sorts by the number.

    It has a letter for the number of digits, then the digits.
    """
    digits = str(number)
    return chr(ord("a") + len(digits)) + digits


@lru_cache(maxsize=1024)  # one entry sets several registers of a response
def _entry_in(text: str) -> EntryId:
    ms, _, seq = text.partition("-")
    return EntryId(int(ms[1:]), int(seq[1:]))


def register_field(name: RegisterName) -> str:
    """Return the name of a register's hash field without its prefix `ctx:`: `<name>` or `<name>:learned`.

    `:learned` marks a value that an event gave instead of the producer.
    """
    return f"{name.name}:learned" if name.learned else name.name


REGISTERS = {
    f"ctx:{register_field(name)}": name
    for name in (
        RegisterName(name, learned)
        for name in (*CONTEXT_NAMES, *(TRUNCATED + each for each in TRUNCATABLE))
        for learned in (False, True)
    )
}
"""The names of all registers that a state may have, by whole names of fields, such as `ctx:model`."""


def encode_ending(ending: Ending) -> bytes:
    """Return an ending's output index, status, reason and copies as a field's value.

    In place of a status that v0.1.0 cannot read, the value has the one of `_STATUS_OF_V0_1`. `note_of` has
    the real status.
    """
    copies = _encode_copies(ending.copies)
    status = _STATUS_OF_V0_1.get(ending.status, ending.status)
    return _encode((ending.output_index, status, ending.reason, copies))


def note_of(ending: Ending) -> Note:
    """Return the note to store next to an ending: its reason class, and the provider's category and text.

    The note has the ending's status only if `encode_ending` stores another one in its place. The result is
    equal to `Note()` if there is nothing to note.
    """
    return Note(
        status=ending.status if ending.status in _STATUS_OF_V0_1 else None,
        reason_class=ending.reason_class,
        provider_category=ending.provider_category,
        provider_explanation=ending.provider_explanation,
    )


def encode_note(note: Note) -> bytes:
    """Return a note as a field's value."""
    checksum = note.checksum
    return _encode(
        _NoteRecord(
            None if checksum is None else checksum.sha256,
            None if checksum is None else checksum.size,
            note.source,
            note.redacted,
            note.loss,
            note.status,
            note.reason_class,
            note.provider_category,
            note.provider_explanation,
            _encode_copies(note.announced),
            note.fallback,
        )
    )


def _encode_copies(copies: Iterable[Copy]) -> list[_Copy]:
    return [(c.item_id, c.output_position, c.content_index, c.kind, to_bytes(c.text)) for c in copies]


def _decode_copies(copies: Iterable[_Copy]) -> tuple[Copy, ...]:
    return tuple(
        Copy(item_id, output_position, content_index, kind, from_bytes(text))
        for item_id, output_position, content_index, kind, text in copies
    )


def _note_from(data: bytes) -> Note:
    record = _decode_note(data)
    return Note(
        None if record.sha256 is None else Checksum(record.sha256, record.bytes),
        record.source,
        record.redacted,
        record.loss,
        record.status,
        record.reason_class,
        record.category,
        record.explanation,
        _decode_copies(record.announced),
        None if record.fallback is None else ModelChange(*record.fallback),
    )


def _with_note(ending: Ending, note: Note | None) -> Ending:
    if note is None:
        return ending
    return ending._replace(
        status=note.status or ending.status,
        reason_class=note.reason_class,
        provider_category=note.provider_category,
        provider_explanation=note.provider_explanation,
    )


def _decode_end(stream_key: StreamKey, data: bytes) -> Ending:
    output_index, status, reason, copies = _decode_ending(data)
    return Ending(
        stream_key,
        output_index,
        status,
        reason,
        _decode_copies(copies),
    )


def registers_of(fields: Mapping[str, bytes | None]) -> Registers:
    """Return the registers among some fields of a state; ignore other fields, and values of None."""
    return {
        REGISTERS[field]: _register_of(stored)
        for field, stored in fields.items()
        if stored is not None and field in REGISTERS
    }


def _register_of(stored: bytes) -> Register:
    entry, _, value = stored.decode().partition(" ")
    return Register(_entry_in(entry), value)


def marked_parts(stream_key: StreamKey, marker: bytes) -> list[PartKey]:
    """Return the parts that a marker lists, which are all parts of a response that is over.

    Written texts and dropped copies are both listed.
    """
    _, _, *flat = _decode_marker(marker)
    return [PartKey.from_field(stream_key, field) for field in flat[::2]]


def open_fields(fields: Mapping[str, bytes]) -> list[str]:
    """Return the names of the parts that a state's fields give as open, in the order of `fields`.

    A name is `<output index>:<content index>:<kind>`, as in `PartKey.field`.
    """
    return [name[5:] for name, value in fields.items() if name.startswith("part:") and value != b"done"]


def state_of(
    stream_key: StreamKey, fields: Mapping[str, bytes], open_logs: Mapping[str, bytes | None]
) -> ResponseState:
    """Build the state of a response from its stored fields, and from its open parts' logs by `PartKey.field`.

    A part whose log is None counts as finished: another worker has finished it since the fields were read. A
    part with a corrupt log is left out, neither open nor finished, and an error is logged. Endings get the
    attributes that their notes have. Unknown fields are ignored.
    """
    open_parts: dict[PartKey, PartLog] = {}
    for field, log in open_logs.items():
        part = PartKey.from_field(stream_key, field)
        try:
            if log is not None:
                open_parts[part] = decode_log(log)
        except CorruptLogError as error:  # it must not block the others; its TTL removes it
            logs.logger().error(
                "corrupt log, part skipped", response=str(stream_key), part=field, error=str(error)
            )
    registers: Registers = {}
    endings: dict[Arrival, Ending] = {}
    notes: dict[Arrival, Note] = {}
    finished: dict[PartKey, str | None] = {}
    for name, value in fields.items():
        prefix, _, rest = name.partition(":")
        if name in REGISTERS:
            registers[REGISTERS[name]] = _register_of(value)
        elif prefix == "end":
            endings[_arrival_in(rest)] = _decode_end(stream_key, value)
        elif prefix == "note":
            notes[_arrival_in(rest)] = _note_from(value)
        elif prefix == "part" and (value == b"done" or open_logs.get(rest) is None):
            digest = fields.get(f"digest:{rest}")
            finished[PartKey.from_field(stream_key, rest)] = None if digest is None else digest.decode()
    for arrival, ending in endings.items():
        endings[arrival] = _with_note(ending, notes.get(arrival))
    return ResponseState(stream_key, registers, endings, open_parts, finished, notes)


def _arrival_in(field: str) -> Arrival:
    """Parse the output of `arrival_field`."""
    entry, _, position = field.partition(":")
    return Arrival(EntryId.parse(entry), int(position))


def in_ms(seconds: float) -> int:
    """Return seconds as milliseconds, the unit of the scripts, rounded to the nearest whole number."""
    return round(seconds * 1000)
