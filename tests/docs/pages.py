"""Parse the pages into code, links, tables and headings, with CommonMark."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markdown_it.token import Token

ROOT = Path(__file__).parents[2]

_CODE = re.compile(r"`([^`]+)`")
_HTML_TARGET = re.compile(r'(?:src|srcset|href)="([^"]+)"')


class Block(NamedTuple):
    """A fenced block: its language and its content."""

    language: str
    text: str


class Page:
    """A page of the documentation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.relative_to(ROOT).as_posix()
        self._tokens: list[Token] = MarkdownIt("commonmark").enable("table").parse(path.read_text("utf-8"))

    @cached_property
    def blocks(self) -> list[Block]:
        """Return its fenced blocks."""
        return [Block(token.info, token.content) for token in self._tokens if token.type == "fence"]

    @cached_property
    def code(self) -> list[str]:
        """Return the inline code of its sentences, tables and headings."""
        return [token.content for token in self._inline() if token.type == "code_inline"]

    @cached_property
    def targets(self) -> list[str]:
        """Return the targets of its links and pictures."""
        found: list[str] = []
        for token in [*self._tokens, *self._inline()]:
            if token.type in {"link_open", "image"}:
                found.append(str(token.attrs.get("href") or token.attrs["src"]))
            elif token.type in {"html_block", "html_inline"}:
                found += _HTML_TARGET.findall(token.content)
        return found

    @cached_property
    def titles(self) -> list[str]:
        """Return the titles of its headings."""
        return [
            title.content
            for opening, title in zip(self._tokens, self._tokens[1:], strict=False)
            if opening.type == "heading_open"
        ]

    @cached_property
    def anchors(self) -> set[str]:
        """Return its headings' anchors, as code hosts make them."""
        return {
            re.sub(r"[^\w\- ]", "", title.lower().replace("`", "")).replace(" ", "-") for title in self.titles
        }

    def table(self, heading: str) -> list[list[str]]:
        """Return the rows of the first table below a heading, without its header; cells are Markdown.

        Raises:
            LookupError: The heading does not exist or has no table.
        """
        below = False
        rows: list[list[str]] = []
        for index, token in enumerate(self._tokens):
            if token.type == "heading_open":
                if rows:
                    break
                below = self._tokens[index + 1].content == heading
            elif below and token.type == "table_close":
                break
            elif below and token.type == "tr_open":
                rows.append([])
            elif (
                below and rows and token.type == "inline" and self._tokens[index - 1].type[:2] in {"td", "th"}
            ):
                rows[-1].append(token.content)
        if not rows:
            raise LookupError(f"{self.name} has no table below {heading!r}")
        return rows[1:]

    def _inline(self) -> Iterator[Token]:
        for token in self._tokens:
            yield from token.children or ()


def quoted(cell: str) -> list[str]:
    """Return the inline code of a cell."""
    return _CODE.findall(cell)


README = Page(ROOT / "README.md")
CLIENTS = Page(ROOT / "docs/clients.md")
CONTRACT = Page(ROOT / "docs/contract.md")
ARCHITECTURE = Page(ROOT / "docs/architecture.md")
OPERATIONS = Page(ROOT / "docs/operations.md")
PRIVACY = Page(ROOT / "docs/privacy.md")
CHANGELOG = Page(ROOT / "CHANGELOG.md")
DECISIONS = [Page(path) for path in sorted((ROOT / "docs/decisions").glob("0*.md"))]
DECISIONS_INDEX = Page(ROOT / "docs/decisions/README.md")
PAGES = [
    *(
        Page(ROOT / f"{name}.md")
        for name in ("README", "client/README", "CONTRIBUTING", "RELEASE", "SECURITY")
    ),
    *(Page(path) for path in sorted((ROOT / "docs").glob("*.md"))),
    DECISIONS_INDEX,
    *DECISIONS,
]
"""The pages that are true today; the changelog also has what was true once."""
