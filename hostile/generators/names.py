"""Names that are too long, or too many."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hostile.entry import ANY, USED, entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hostile.entry import Entry, Mutator

_LONG = 100_000


def long_names(mutator: Mutator) -> Iterator[Entry]:
    """Send a name of 100,000 characters, then thousands of texts that would carry it."""
    length, parts = _LONG, 2000
    while True:
        owner = mutator.id()
        name = mutator.pick("n", "名", "🙂") * length
        user = {"safety_identifier": name} if mutator.chance(0.5) else {}
        created = {"type": "response.created", "response": {"model": name, **user}}
        yield entry(created, response_id=owner, ends=ANY)  # its JSON may exceed the maximum size of an event
        closings: list[Any] = [mutator.done(index, item_id=name) for index in range(1)]
        closings += [mutator.done(index, item_id="i" * min(length, 1024)) for index in range(1, parts)]
        yield entry(closings, response_id=owner, context=mutator.context())
        yield entry(
            _long_end(mutator, name), response_id=owner, context={"tenant": name[:300], "model": name[:256]}
        )
        length, parts = mutator.size(_LONG), mutator.size(500)


def _long_end(mutator: Mutator, name: str) -> dict[str, Any]:
    end: dict[str, Any] = mutator.pick(
        {"type": "response.incomplete", "response": {"incomplete_details": {"reason": name}}},
        {"type": "response.failed", "response": {"error": {"code": name, "type": name, "message": name}}},
        {"type": "error", "code": name, "innererror": {"code": name}},
    )
    return end


def many_names(mutator: Mutator) -> Iterator[Entry]:
    """Send thousands of made-up models, tenants, providers and types."""
    number = 0
    while True:
        number += 1
        name = f"{mutator.pick('junk', 'gpt-4o', 'response.')}{mutator.rng.getrandbits(48):x}"
        if number % 4 == 0:
            yield entry([{"type": f"junk.{name}.{n}"} for n in range(5)], ends=USED)
            continue
        context = {"model": name, "tenant": f"t{name}", "provider": f"p{name}"}
        yield entry(
            {"type": "response.completed", "response": {}},
            response_id=mutator.id(),
            ends=ANY,
            context=context,
        )
