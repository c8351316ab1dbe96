"""Find reasoning that a model writes between tags at the beginning of its answer."""

from __future__ import annotations

from typing import Literal

Piece = tuple[Literal["reasoning", "output_text"], str]


class ThinkingTags:
    """Divides an answer into the reasoning between tags such as `<think>` and `</think>`, and the rest.

    Only a tag at the very beginning counts, after at most 256 characters of white space; a later one is part
    of the answer. What may be such a tag is held until the next characters decide. If the tag is `reasoning`,
    several pairs of tags may follow each other.

    Args:
        tag: name of the tags.
    """

    def __init__(self, tag: str = "think") -> None:
        self.tag = tag
        self._open, self._close = f"<{tag}>", f"</{tag}>"
        self._held = ""
        self._state: Literal["start", "inside", "outside"] = "start"

    def stop(self) -> None:
        """Treat later tags as a part of the answer, unless a tag is open."""
        if self._state == "start":
            self._state = "outside"

    def divide(self, text: str) -> list[Piece]:
        """Return the pieces that are certain after this fragment."""
        if self._held:
            text, self._held = self._held + text, ""
        pieces: list[Piece] = []
        while text and self._state != "outside":
            text = self._read_start(text) if self._state == "start" else self._read_inside(text, pieces)
        return pieces + _piece("output_text", text)

    def rest(self) -> list[Piece]:
        """Return what was held back, when the answer has ended."""
        held, self._held = self._held, ""
        return _piece("reasoning" if self._state == "inside" else "output_text", held)

    def _read_start(self, text: str) -> str:
        """Look for the tag that opens; return the text after it, or the text if the answer has none."""
        begin = text.lstrip()
        if begin.startswith(self._open):
            self._state = "inside"
            return begin.removeprefix(self._open)
        if self._open.startswith(begin) and len(text) <= _BLANKS:  # also if it is empty
            self._held = text
            return ""
        self._state = "outside"
        return text

    def _read_inside(self, text: str, pieces: list[Piece]) -> str:
        """Add the reasoning to the pieces; return the text after the tag that closes it."""
        reasoning, close, answer = text.partition(self._close)
        if close:
            self._state = "start" if self.tag == "reasoning" else "outside"
            pieces += _piece("reasoning", reasoning)
            return answer
        held = next(n for n in range(len(self._close) - 1, -1, -1) if text.endswith(self._close[:n]))
        self._held = text[len(text) - held :]
        pieces += _piece("reasoning", text[: len(text) - held])
        return ""


_BLANKS = 256


def _piece(kind: Literal["reasoning", "output_text"], text: str) -> list[Piece]:
    return [(kind, text)] if text else []
