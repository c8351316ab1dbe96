"""Compare texts with those of the accumulator in the installed `openai` package.

`ResponseStreamState` implements `client.responses.stream()`. It joins the deltas of answers. It does not join
refusals, reasoning and summaries, but copies them from the final response. The last test fails if that
changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._models import construct_type_unchecked
from openai._types import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent

from handlers import BUILT_IN
from handlers.core.identity import EntryId
from handlers.core.routing import RoutingTable
from tests.service.pipeline.model import ALL_STORED, StoredSet
from tests.strategies import cut_by_code_unit, entry_of, whole_text

if TYPE_CHECKING:
    from deltaloom.messages import Kind

Json = dict[str, Any]
TABLE = RoutingTable(BUILT_IN.values())

_PARTS: dict[Kind, tuple[str, str, str]] = {
    "output_text": ("output_text", "text", "response.output_text"),
    "refusal": ("refusal", "refusal", "response.refusal"),
    "reasoning": ("reasoning_text", "text", "response.reasoning_text"),
    "reasoning_summary": ("summary_text", "text", "response.reasoning_summary_text"),
}
"""A part's type, the name of its text and the prefix of its events' types, by kind."""


class Text(NamedTuple):
    """A text of a response."""

    output_index: int
    content_index: int
    kind: Kind
    pieces: list[str]

    @property
    def text(self) -> str:
        """Return the whole text."""
        return "".join(self.pieces)

    def part(self, text: str) -> Json:
        """Return a copy of the part with this text."""
        part_type, name, _ = _PARTS[self.kind]
        return {"type": part_type, name: text} | ({"annotations": []} if self.kind == "output_text" else {})

    def events(self, item_id: str) -> list[Json]:
        """Return the part's events in the API's form."""
        _, name, prefix = _PARTS[self.kind]
        summary = self.kind == "reasoning_summary"
        place = {
            "item_id": item_id,
            "output_index": self.output_index,
            "summary_index" if summary else "content_index": self.content_index,
        }
        frame = "response.reasoning_summary_part" if summary else "response.content_part"
        logprobs: Json = {"logprobs": []} if self.kind == "output_text" else {}
        return [
            {"type": f"{frame}.added", "part": self.part(""), **place},
            *({"type": f"{prefix}.delta", "delta": piece, **place, **logprobs} for piece in self.pieces),
            {"type": f"{prefix}.done", name: self.text, **place, **logprobs},
            {"type": f"{frame}.done", "part": self.part(self.text), **place},
        ]


class Item(NamedTuple):
    """An output item and its texts."""

    item_id: str
    type: str
    texts: list[Text]

    def copy(self, *, empty: bool = False) -> Json:
        """Return a full copy of the item, or its beginning."""
        parts = [] if empty else [(text.kind, text.part(text.text)) for text in self.texts]
        content = [part for kind, part in parts if kind != "reasoning_summary"]
        base = {"id": self.item_id, "type": self.type, "status": "completed", "content": content}
        if self.type == "message":
            return base | {"role": "assistant"}
        return base | {"summary": [part for kind, part in parts if kind == "reasoning_summary"]}


@st.composite
def whole_pieces(draw: st.DrawFn) -> list[str]:
    """Draw a text in pieces that split no character, since the accumulator does not join halves."""
    text = draw(whole_text)
    pieces = draw(cut_by_code_unit(text))
    return pieces if all(piece.isprintable() or piece.isascii() for piece in pieces) else [text]


@st.composite
def items(draw: st.DrawFn) -> list[Item]:
    """Draw a response's output in the API's form."""
    output = []
    for index in range(draw(st.integers(1, 3))):
        kind_lists: list[list[Kind]] = (
            [draw(st.lists(st.sampled_from(["output_text", "refusal"]), min_size=1, max_size=2))]
            if draw(st.booleans())
            else [["reasoning"] * draw(st.integers(0, 2)), ["reasoning_summary"] * draw(st.integers(1, 2))]
        )
        texts = [
            Text(index, content_index, kind, draw(whole_pieces()))
            for kinds in kind_lists
            for content_index, kind in enumerate(kinds)
        ]
        output.append(Item(f"it_{index}", "message" if len(kind_lists) == 1 else "reasoning", texts))
    return output


def stream_of(output: list[Item]) -> list[Json]:
    """Return all events of a response, numbered."""
    response: Json = {
        "id": "resp_1",
        "created_at": 1,
        "model": "m-1",
        "object": "response",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    events: list[Json] = [{"type": "response.created", "response": response | {"status": "in_progress"}}]
    for index, item in enumerate(output):
        place = {"output_index": index}
        events.append({"type": "response.output_item.added", "item": item.copy(empty=True), **place})
        events += [event for text in item.texts for event in text.events(item.item_id)]
        events.append({"type": "response.output_item.done", "item": item.copy(), **place})
    copies = [item.copy() for item in output]
    events.append(
        {"type": "response.completed", "response": response | {"status": "completed", "output": copies}}
    )
    return [event | {"sequence_number": number} for number, event in enumerate(events)]


def _theirs(event: Json) -> Any:
    """Return the event as the package parses it."""
    return construct_type_unchecked(value=event, type_=ResponseStreamEvent)  # type: ignore[arg-type]


def accumulated(events: list[Json]) -> tuple[Any, list[str]]:
    """Return the package's final response, and its snapshots of the growing answer."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    given_out = [each for event in events for each in state.handle_event(_theirs(event))]
    snapshots = [each.snapshot for each in given_out if each.type == "response.output_text.delta"]
    return state._completed_response, snapshots  # noqa: SLF001 - the value that get_final_response() returns


def texts_of(response: Any) -> dict[tuple[int, int, Kind], str]:
    """Return all texts of a final response by position and kind."""
    kinds = {part_type: (kind, name) for kind, (part_type, name, _) in _PARTS.items()}
    return {
        (index, content_index, kinds[part.type][0]): getattr(part, kinds[part.type][1])
        for index, item in enumerate(response.output)
        for parts in (getattr(item, "content", None) or [], getattr(item, "summary", None) or [])
        for content_index, part in enumerate(parts)
    }


def assembled(events: list[Json]) -> dict[tuple[int, int, Kind], str]:
    """Return all texts that deltaloom assembles from the stream."""
    stored = StoredSet()
    for number, event in enumerate(events):
        stored.process([entry_of([event], EntryId(1, number), "resp_1")], TABLE, ALL_STORED)
    texts = stored.written.values()
    assert all(text.integrity == "verified" for text in texts)
    return {(text.output_index, text.content_index, text.kind): text.text for text in texts}


@given(items())
def test_texts_are_those_of_their_final_response(output: list[Item]) -> None:
    """Assemble the texts of the package's final response."""
    events = stream_of(output)
    response, _ = accumulated(events)
    assert assembled(events) == texts_of(response)


@given(items())
def test_answers_are_those_that_their_deltas_make(output: list[Item]) -> None:
    """Assemble answers from deltas alone as the accumulator does."""
    events = stream_of(output)
    _, snapshots = accumulated(events)
    answers = [text for item in output for text in item.texts if text.kind == "output_text"]
    grown = ["".join(text.pieces[: n + 1]) for text in answers for n in range(len(text.pieces))]
    assert snapshots == grown
    ours = assembled(
        [event for event in events if event["type"].endswith(".delta") or ".done" in event["type"]]
    )
    whole = [ours[text.output_index, text.content_index, text.kind] for text in answers]
    assert whole == [text.text for text in answers]


@pytest.mark.parametrize(
    ("kind", "joined"),
    [("output_text", "I'm sorry"), ("refusal", ""), ("reasoning", ""), ("reasoning_summary", "")],
)
def test_the_accumulator_joins_answers_only(kind: Kind, joined: str) -> None:
    """Check which kinds the accumulator joins by itself, since the tests above rely on it.

    The response fails before a copy is sent, so that the accumulator returns only the texts that it has
    joined.
    """
    item_type = "message" if kind in {"output_text", "refusal"} else "reasoning"
    events = stream_of([Item("it_0", item_type, [Text(0, 0, kind, ["I'm", " sorry"])])])[:-2]
    events = [event for event in events if not event["type"].endswith("part.done")]
    failed: Json = {"id": "resp_1", "status": "failed", "error": {"code": "server_error", "message": "no"}}
    events.append({"type": "response.failed", "response": failed, "sequence_number": 99})
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    *_, last = [each for event in events for each in state.handle_event(_theirs(event))]
    assert last.type == "response.failed"
    assert "".join(texts_of(last.response).values()) == joined
    assert assembled(events) == {(0, 0, kind): "I'm sorry"}
