"""Copy streams of models to deltaloom, without changing them for the caller.

`tee` wraps one stream, `instrument` an SDK's HTTP client, `instrument_all` every HTTP client of the process,
and `TeeMiddleware` an ASGI application that serves a model:

    for event in tee(client.responses.create(stream=True, ...), publisher):
        ...

Each item goes to the caller first. It is copied when the caller asks for the next one. No fault of the copy
reaches the caller: it is counted in `counters`.
"""

from deltaloom.teeing.asgi import TeeMiddleware
from deltaloom.teeing.counting import counters
from deltaloom.teeing.http_clients import instrument, instrument_all, uninstrument
from deltaloom.teeing.iterables import tee
from deltaloom.teeing.stream_copy import CopyContext, EventPublisher, OfferedStream

__all__ = [
    "CopyContext",
    "EventPublisher",
    "OfferedStream",
    "TeeMiddleware",
    "counters",
    "instrument",
    "instrument_all",
    "tee",
    "uninstrument",
]
