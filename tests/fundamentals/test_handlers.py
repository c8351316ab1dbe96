"""Handlers: how deltaloom learns to read events of your own."""

from collections.abc import Iterator
from typing import Literal

from deltaloom.events import PartEvent
from handlers.core.effects import Closing, Origin
from handlers.core.parts import closing
from handlers.core.routing import Handler, Route
from tests.fundamentals.loom import Loom


class AcmeRefusal(PartEvent):
    """An event of Acme's gateway, which sends each refusal at once."""

    type: Literal["acme.refusal"]
    message: str


def on_refusal(event: AcmeRefusal, origin: Origin) -> Iterator[Closing]:
    """Return the effects of the event: it closes a refusal, and gives its whole text."""
    return closing(event, origin, "refusal", event.content_index, event.message)


handler = Handler(name="acme", routes=(Route(AcmeRefusal, on_refusal),))


async def test_a_handler_of_your_own(loom: Loom) -> None:
    """A handler only returns the effects of an event. Texts and alerts follow from them."""
    loom.install("tests.fundamentals.test_handlers:handler")
    part = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    async with loom.worker_processes(1):
        await loom.publish({"type": "acme.refusal", "message": "Acme says no.", **part})
        await loom.all_is_processed()

    (text,) = await loom.texts()
    assert (text.kind, text.text) == ("refusal", "Acme says no.")
    assert [alert.type for alert in await loom.alerts()] == [
        "deltaloom.refusal.opened",
        "deltaloom.refusal.finished",
    ]
