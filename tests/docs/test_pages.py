"""Test that all links, files, commands, make targets, code and settings on the pages exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from service.cli import app
from tests.docs.pages import ARCHITECTURE, CHANGELOG, PAGES, README, ROOT, Page
from tests.docs.settings_table import SETTINGS_OF, settings_table, written_table

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN_FOLDERS = (
    "bench",
    "chaos",
    "checks",
    "client",
    "demo",
    "deploy",
    "docs",
    "embedded",
    "examples",
    "handlers",
    "hostile",
    "locks",
    "mutation",
    "release",
    "service",
    "tests",
)
EXCERPTS_OF = {"go": "*.go", "js": "*.mjs", "python": "*.py", "toml": "*.toml"}
LANGUAGES = {"json", "mermaid", "sh", "text", *EXCERPTS_OF}

_FLOORS_BEGIN = 21
"""Column at which the names of the floors begin, on the page about the architecture."""

_COMMENT = re.compile(r"\s+# .*")
_PATH = re.compile(rf"(?:{'|'.join(OWN_FOLDERS)})/[\w./-]*")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Page) -> None:
    """Resolve all links and anchors."""
    for target in page.targets:
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.path.parent / path).resolve() if path else page.path
        assert linked.exists(), target
        if anchor:
            assert anchor in Page(linked).anchors, target


@pytest.mark.parametrize("page", [*PAGES, CHANGELOG], ids=lambda page: page.name)
def test_rows_have_as_many_cells_as_their_table(page: Page) -> None:
    """Give every row of a table the cells of its header: a renderer drops those beyond it."""
    rows = re.sub(r"^```.*?^```", "", page.path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\n)+", rows, re.MULTILINE):
        lines = table.splitlines()
        assert all(line.endswith("|") for line in lines), table
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1, table


@every_page
def test_files_that_are_named_are_there(page: Page) -> None:
    """Name only files that exist."""
    named = {word for text in [*page.code, *_command_lines(page)] for word in re.split(r"[\s=\[\]]+", text)}
    for word in named:
        path = word.removeprefix("./")
        if _PATH.fullmatch(path):
            assert (ROOT / path).exists(), path


@every_page
def test_make_targets_that_are_named_are_there(page: Page) -> None:
    """Name only existing make targets."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for words in _calls(page, "make"):
        assert set(words[1:2]) <= targets, words


@every_page
def test_commands_that_are_named_are_there(page: Page) -> None:
    """Name only existing commands and options."""
    for words in _calls(page, "deltaloom"):
        command: Any = get_command(app)
        rest = words[1:]
        while rest and getattr(command, "commands", None):
            assert rest[0] in command.commands, words
            command = command.commands[rest.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options, words


@every_page
def test_code_is_an_excerpt_of_what_runs(page: Page) -> None:
    """Show only code that is an excerpt of an example, since examples are run."""
    for block in page.blocks:
        assert block.language in LANGUAGES, block
        if block.language in EXCERPTS_OF:
            sources = (ROOT / "examples").rglob(EXCERPTS_OF[block.language])
            assert any(block.text in source.read_text("utf-8") for source in sources), block.text
        elif block.language == "sh" and re.search("XADD|XREADGROUP", block.text):
            scripts = (ROOT / "examples").glob("*.sh")
            assert any(block.text in script.read_text("utf-8") for script in scripts), block.text


def test_settings_are_those_of_the_code() -> None:
    """List the settings of the code. `python -m tests.docs.settings_table --write` updates the table."""
    for path, listed in SETTINGS_OF.items():
        assert written_table(path.read_text("utf-8")) == settings_table(listed), path.name


def test_floors_are_those_that_are_checked() -> None:
    """Show the floors that import-linter checks, from the top."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    contracts = tools["importlinter"]["contracts"]
    (programs,) = [each["layers"] for each in contracts if "service" in each.get("layers", ())]
    (inside,) = [each["layers"] for each in contracts if each.get("containers") == ["service"]]
    checked = [floor for layer in programs for floor in (inside if layer == "service" else [layer])]
    (picture,) = [block.text for block in ARCHITECTURE.blocks if "__main__" in block.text]
    shown = [line[_FLOORS_BEGIN:] for line in picture.splitlines() if "─" not in line]
    assert shown == [re.sub(r"\(\w+\) \| | \| \(\w+\)", "", floor) for floor in checked]


def test_the_lives_of_a_batch_and_an_alert_name_what_is_there() -> None:
    """Name existing packages and scripts in the pictures of a batch's life and an alert's."""
    pictures = [block.text for block in ARCHITECTURE.blocks if block.language == "mermaid"]
    packages = [re.findall(r"participant \w+ as ([a-z/]+)$", picture, re.MULTILINE) for picture in pictures]
    scripts = [re.findall(r"\w+\.lua", picture) for picture in pictures]
    assert [len(named) for named in packages] == [4, 2]
    assert [len(named) for named in scripts] == [2, 5]
    paths = [*chain(*packages), *(f"service/storage/lua/{script}" for script in chain(*scripts))]
    for path in paths:
        assert (ROOT / path).exists(), path


def test_the_picture_has_an_alternative_text() -> None:
    """Describe the picture in its alternative text, for readers who cannot see it."""
    markdown = README.path.read_text("utf-8")
    (alternative,) = re.findall(r"!\[([^\]]{100,})\]\(docs/flow\.svg\)", markdown)
    picture = (ROOT / "docs/flow.svg").read_text("utf-8")
    assert "<title" in picture
    assert "prefers-color-scheme: dark" in picture
    for shown in ("deltaloom:deltas", "worker", "deltaloom:assembled", "deltaloom:alerts", "relay"):
        assert f">{shown}<" in picture
        assert shown in alternative


def _command_lines(page: Page) -> Iterator[str]:
    for block in page.blocks:
        if block.language == "sh":
            yield from (_COMMENT.sub("", line) for line in block.text.splitlines())


def _calls(page: Page, program: str) -> Iterator[list[str]]:
    """Yield the calls of a program on a page as words, without variable assignments before them."""
    for text in [*page.code, *_command_lines(page)]:
        if not re.match(rf"(?:\w+=\S+ )*(?:\S*/)?{program}(?: |$)", text):
            continue
        words = shlex.split(text.replace("…", ""))
        while "=" in words[0]:
            words.pop(0)
        yield words
