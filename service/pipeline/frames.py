"""The fast way to read what nearly all events are: deltas, and events that nobody handles.

The contract is the pydantic models of `deltaloom.events`; they read everything else, and everything that
this does not take. What it does take, it reads as they do: same fields, same limits. (Tested with whatever
hypothesis thinks of, `tests/service/pipeline/test_frames.py`.)
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

_Index = Annotated[int, Meta(ge=0, lt=2**31)]
_Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Frame(msgspec.Struct, gc=False):
    """An event, as far as a delta has fields."""

    type: str
    delta: str | None = None
    item_id: str | None = None
    """Empty is none; whoever reads it counts that it was left out."""
    output_index: _Index | UnsetType = UNSET
    content_index: _Index | UnsetType = UNSET
    summary_index: _Index | UnsetType = UNSET
    sequence_number: _Number | None = None


decode_one = msgspec.json.Decoder(Frame).decode
decode_array = msgspec.json.Decoder(list[Frame]).decode
decode_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
"""An array's events, each as its JSON."""

NotFrameError = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What is raised for a body that has to be read the other way."""
