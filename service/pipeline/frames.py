"""Decode nearly all events with msgspec: deltas, and events without a handler.

The contract is the pydantic models of `deltaloom.events`. They read all other events, and every event that
this decoder refuses. An event that it accepts is read exactly as the models read it: same fields, same
limits. `tests/service/pipeline/test_frames.py` proves that with hypothesis.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

_Index = Annotated[int, Meta(ge=0, lt=2**31)]
_Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Frame(msgspec.Struct, gc=False):
    """An event of any type, with the fields that a delta may have."""

    type: str
    delta: str | None = None
    item_id: str | None = None
    """Item id; None if it is missing. The batch counts an empty one as a left-out field, and ignores it."""
    output_index: _Index | UnsetType = UNSET
    content_index: _Index | UnsetType = UNSET
    summary_index: _Index | UnsetType = UNSET
    sequence_number: _Number | None = None


decode_one = msgspec.json.Decoder(Frame).decode
decode_array = msgspec.json.Decoder(list[Frame]).decode
decode_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
"""Decode an array into its events, each as raw JSON."""

NOT_A_FRAME = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Errors that the decoders raise for a body that has to take the slow path."""
