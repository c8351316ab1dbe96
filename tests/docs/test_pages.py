"""What the pages name has to be there: links, files, commands, make targets, code, settings."""

from __future__ import annotations

import re
import shlex
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from service.cli import app
from tests.docs.pages import ARCHITECTURE, PAGES, README, ROOT, Page
from tests.docs.settings_table import settings_table, written_table

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN_FOLDERS = ("client", "deploy", "docs", "examples", "handlers", "locks", "service", "tests")
EXCERPTS_OF = {"python": "*.py", "js": "*.mjs", "toml": "*.toml"}
LANGUAGES = {"json", "sh", "text", *EXCERPTS_OF}

_PATH = re.compile(rf"(?:{'|'.join(OWN_FOLDERS)})/[\w./-]*")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@every_page
def test_links_lead_somewhere(page: Page) -> None:
    """A reader would click on a link and find nothing."""
    for target in page.targets:
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.path.parent / path).resolve() if path else page.path
        assert linked.exists(), target
        if anchor:
            assert anchor in Page(linked).anchors, target


@every_page
def test_files_that_are_named_are_there(page: Page) -> None:
    """A page would send a reader to a file that was renamed or removed."""
    named = {word for text in [*page.code, *_command_lines(page)] for word in re.split(r"[\s=\[\]]+", text)}
    for word in named:
        path = word.removeprefix("./")
        if _PATH.fullmatch(path):
            assert (ROOT / path).exists(), path


@every_page
def test_make_targets_that_are_named_are_there(page: Page) -> None:
    """A page would tell a newcomer to make something that cannot be made."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for words in _calls(page, "make"):
        assert set(words[1:2]) <= targets, words


@every_page
def test_commands_that_are_named_are_there(page: Page) -> None:
    """A page would tell an operator to type something that the command refuses."""
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
    """Code that stands only in a page is never run, and one day no longer works."""
    for block in page.blocks:
        assert block.language in LANGUAGES, block
        if block.language in EXCERPTS_OF:
            sources = (ROOT / "examples").rglob(EXCERPTS_OF[block.language])
            assert any(block.text in source.read_text("utf-8") for source in sources), block.text
        elif block.language == "sh" and "XADD" in block.text:
            assert block.text in (ROOT / "examples/publish.sh").read_text("utf-8")


def test_settings_are_those_of_the_code() -> None:
    """An operator would set a variable that nobody reads. `python -m tests.docs.settings_table --write`."""
    assert written_table(README.path.read_text("utf-8")) == settings_table()


def test_floors_are_those_that_are_checked() -> None:
    """A newcomer would import upwards, on the word of the page, and fail the checks."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    contracts = tools["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["service"]]
    floors = [[name for name in re.findall(r"\w+", layer) if _is_module(name)] for layer in layers]
    assert " > ".join(" | ".join(floor) for floor in floors) in ARCHITECTURE.path.read_text("utf-8")


def _is_module(name: str) -> bool:
    return (ROOT / "service" / name).is_dir() or (ROOT / "service" / f"{name}.py").is_file()


def test_the_picture_says_in_words_what_it_shows() -> None:
    """Whoever cannot see it, or loads no pictures, would miss how the whole thing works."""
    markdown = README.path.read_text("utf-8")
    assert re.search(r"!\[[^\]]{100,}\]\(docs/flow\.svg\)", markdown)
    picture = (ROOT / "docs/flow.svg").read_text("utf-8")
    assert "<title" in picture
    assert "prefers-color-scheme: dark" in picture


def _command_lines(page: Page) -> Iterator[str]:
    for block in page.blocks:
        if block.language == "sh":
            yield from block.text.splitlines()


def _calls(page: Page, program: str) -> Iterator[list[str]]:
    """Calls of a program, as words, in the page's blocks and sentences; without variables before them."""
    for text in [*page.code, *_command_lines(page)]:
        if not re.match(rf"(?:\w+=\S+ )*(?:\S*/)?{program}(?: |$)", text):
            continue
        words = shlex.split(text.replace("…", ""))
        while "=" in words[0]:
            words.pop(0)
        yield words
