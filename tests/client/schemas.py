"""Generate the library's JSON Schemas from its models: `python -m tests.client.schemas`.

Each message has its own file, since each output stream holds one kind of message. One file describes all
input events.
"""

from __future__ import annotations

import ast
import inspect
import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from deltaloom import AssembledText, DeadLetter, Delivery, ModerationAlert, UndeliveredAlert, events

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parents[2] / "client" / "deltaloom" / "schemas"

DIALECT = "https://json-schema.org/draft/2020-12/schema"

MESSAGES: tuple[type[BaseModel], ...] = (
    AssembledText,
    ModerationAlert,
    Delivery,
    DeadLetter,
    UndeliveredAlert,
)

EVENTS: tuple[type[BaseModel], ...] = tuple(
    model
    for _, model in inspect.getmembers(events, inspect.isclass)
    if issubclass(model, events.Event) and "type" in model.model_fields
)


class _Untitled(GenerateJsonSchema):
    """A generator without titles of fields, which code generators would turn into types."""

    def field_title_should_be_set(self, _schema: Any) -> bool:
        return False


def schemas() -> dict[str, str]:
    """Return the text of each file by its name."""
    files = {f"{model.__name__}.json": _message(model) for model in MESSAGES}
    return {
        name: f"{json.dumps(schema, indent=2)}\n"
        for name, schema in {**files, "Event.json": _event()}.items()
    }


def validator(name: str) -> Draft202012Validator:
    """Return a validator of one file of the installed library."""
    schema = json.loads(files("deltaloom").joinpath("schemas", f"{name}.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def _message(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(mode="serialization", schema_generator=_Untitled)
    definitions = schema.pop("$defs", {})
    described = _described({model.__name__: schema, **definitions})
    return {
        "$schema": DIALECT,
        **described.pop(model.__name__),
        **({"$defs": described} if described else {}),
    }


def _event() -> dict[str, Any]:
    """Return the schema of all input events, with one definition for each `type`."""
    _, together = models_json_schema([(model, "validation") for model in EVENTS], schema_generator=_Untitled)
    return {
        "$schema": DIALECT,
        "title": "Event",
        "description": "An event that deltaloom reads. One of any other type is counted, and has no effect.",
        "oneOf": [{"$ref": f"#/$defs/{model.__name__}"} for model in EVENTS],
        "$defs": _described(together["$defs"]),
    }


def _described(definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the definitions with the docstrings of fields, and with `anyOf` in place of `oneOf`.

    Pydantic writes a union with a discriminator function as `oneOf`. A part of a known type also matches "any
    other part", so that only `anyOf` is correct.
    """
    docstrings = dict(_docstrings())
    for name, definition in definitions.items():
        for field, schema in definition.get("properties", {}).items():
            if (name, field) in docstrings:
                schema["description"] = docstrings[name, field]
    return json.loads(json.dumps(definitions).replace('"oneOf":', '"anyOf":'))  # type: ignore[no-any-return]


def _docstrings() -> Iterator[tuple[tuple[str, str], str]]:
    """Yield ((model, field as named in JSON), docstring) for own and inherited fields."""
    own: dict[str, dict[str, str]] = {}
    for module in (events, inspect.getmodule(AssembledText)):
        assert module is not None
        for node in ast.parse(inspect.getsource(module)).body:
            if isinstance(node, ast.ClassDef):
                own[node.name] = dict(_field_docstrings(node))
    for model in _subclasses(BaseModel):
        for base in reversed(model.__mro__):
            for field, text in own.get(base.__name__, {}).items():
                alias = model.model_fields[field].serialization_alias
                yield (model.__name__, alias or field), text


def _field_docstrings(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, below in zip(node.body, node.body[1:], strict=False):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, " ".join(text.split())


def _subclasses(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in model.__subclasses__():
        if each.__module__.startswith("deltaloom."):
            yield each
            yield from _subclasses(each)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.json"):
        path.unlink()
    for name, text in schemas().items():
        FOLDER.joinpath(name).write_text(text, "utf-8")
