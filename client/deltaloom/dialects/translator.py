"""Translate the bytes of a provider's answer to events of the Responses API."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

from deltaloom.dialects import (
    agents,
    anthropic,
    bedrock,
    chat,
    cohere,
    gemini,
    interactions,
    ollama,
    responses,
)
from deltaloom.dialects.content_encoding import decoder_of
from deltaloom.dialects.errors import BodyError
from deltaloom.dialects.errors_in_bodies import error_ending, status_error
from deltaloom.dialects.framing import (
    BOM,
    DONE,
    EventStreamFrames,
    Framing,
    JsonValues,
    ServerSentEvents,
    WireMessage,
)
from deltaloom.dialects.json_values import Object, object_at, text_at
from deltaloom.dialects.writing import CANCELLED, INTERRUPTED, ProviderEnding, ResponseWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Event = dict[str, Any]
"""An event of the Responses API, ready for `json.dumps`."""

BODY_BYTES: Final = 256 * 1024 * 1024
"""Maximum bytes of a body after decompression. A longer one ends as failed."""

HELD_MESSAGES: Final = 4
"""Messages that are held until the dialect is detected."""

_ERROR_STATUS: Final = 400
_BLANKS: Final = 1024
"""Bytes of white space before the body after which it is read as server-sent events."""

_UNKNOWN: Final = "message of an unknown dialect"
_FRAME_TYPE: Final = "application/vnd.amazon.eventstream"


class DialectReader(Protocol):
    """Reads the messages of one dialect and tells the writer what they say."""

    def read(self, message: WireMessage) -> None:
        """Read one message."""
        ...

    def finish(self) -> None:
        """Write the end of the response, after the last message."""
        ...


class Dialect(NamedTuple):
    """A wire format."""

    name: str
    """The name in the context field `dialect`."""
    provider: str
    """The provider whose format it is, unless the caller knows better."""
    make_reader: Callable[[ResponseWriter, str], DialectReader]
    recognises: Callable[[Any], bool]
    """Function that returns True if a message looks like one of this dialect."""
    path_parts: tuple[str, ...]
    """Parts of URL paths that have this format."""
    beginning: str | None = None
    """The first event of a stream, if the dialect has one."""


def _own_dialect(value: Any) -> Dialect | None:
    """Return the dialect in which a model of Bedrock has written a message; None if it is unknown."""
    own = (each for each in DIALECTS if each.name not in {"bedrock.agents", "bedrock.invoke_model"})
    return next((each for each in own if each.recognises(value)), None)


def _invoke_model(writer: ResponseWriter, provider: str) -> DialectReader:
    def inner_of(value: Any) -> DialectReader | None:
        found = _own_dialect(value)
        return found.make_reader(writer, found.provider) if found else None

    return bedrock.InvokeModel(writer, provider, inner_of)


DIALECTS: Final[tuple[Dialect, ...]] = (
    Dialect(
        "openai.responses",
        "openai",
        responses.Responses,
        responses.is_responses,
        ("/responses",),
        "response.created",
    ),
    Dialect("openai.chat", "openai", chat.Chat, chat.is_chat, ("/chat/completions", "/completions")),
    Dialect(
        *("anthropic.messages", "anthropic", anthropic.Anthropic, anthropic.is_anthropic, ("/v1/messages",)),
        "message_start",
    ),
    Dialect(
        "gemini.interactions",
        "gcp.gemini",
        interactions.Interactions,
        interactions.is_interactions,
        ("/interactions",),
    ),
    Dialect(
        *("gemini.generate_content", "gcp.gemini", gemini.Gemini, gemini.is_gemini),
        (":streamGenerateContent", ":generateContent"),
    ),
    Dialect(
        *("bedrock.converse", "aws.bedrock", bedrock.Bedrock, bedrock.is_bedrock),
        ("/converse-stream", "/converse"),
        "messageStart",
    ),
    Dialect("bedrock.agents", "aws.bedrock", agents.Agents, agents.is_agents, ("/text",)),
    Dialect(
        *("bedrock.invoke_model", "aws.bedrock", _invoke_model, bedrock.is_invoke_model),
        ("/invoke-with-response-stream", "/invoke"),
    ),
    Dialect("cohere.chat", "cohere", cohere.Cohere, cohere.is_cohere, ("/v2/chat",), "message-start"),
    Dialect("ollama.chat", "ollama", ollama.Ollama, ollama.is_ollama, ("/api/chat", "/api/generate")),
)
"""Known dialects. The first one that recognises a message counts."""

_BY_NAME: Final = {dialect.name: dialect for dialect in DIALECTS}
_INVOKE_MODEL: Final = _BY_NAME["bedrock.invoke_model"]

EndReason = Literal["complete", "cancelled", "interrupted"]
"""End of the transfer of a body: to its end, because the client left, or because the connection broke."""


def dialect_named(name: str) -> Dialect:
    """Return the dialect with this name.

    Raises:
        ValueError: no dialect has the name.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise ValueError(f"dialect {name!r:.80} is unknown; known are {', '.join(_BY_NAME)}") from None


def dialect_of_path(path: str) -> Dialect | None:
    """Return the dialect of a URL's path; None if the path shows none."""
    path = path.partition("?")[0].rstrip("/")
    return next((each for each in DIALECTS if any(path.endswith(part) for part in each.path_parts)), None)


class Translator:
    """Translates one answer of a provider: feed it the bytes of the body, then end it.

    Feed it either bytes or messages. Any division of the bytes gives the same events. Every answer gives
    exactly one end. Nothing that a provider sends raises an error; what cannot be used is counted in
    `left_out`.

    Args:
        dialect: name of the dialect; None to detect it from the path and the first messages.
        path: path of the request's URL.
        content_type: header `Content-Type` of the answer.
        content_encoding: header `Content-Encoding` of the answer: gzip, deflate, br, zstd, or none. br needs
            the package `brotli`, and zstd, before Python 3.14, `backports.zstd`.
        status: HTTP status of the answer. The body of a status from 400 on is an error.
        provider: name of the provider, as in OpenTelemetry's `gen_ai.provider.name`; None for that of the
            dialect.
        response_id: id of the response; None to make one.

    Raises:
        ValueError: no dialect has the name.
    """

    def __init__(
        self,
        dialect: str | None = None,
        *,
        path: str = "",
        content_type: str = "",
        content_encoding: str = "",
        status: int = 200,
        provider: str | None = None,
        response_id: str | None = None,
    ) -> None:
        self._dialect = dialect_named(dialect) if dialect else dialect_of_path(path)
        self._is_certain = dialect is not None
        self._content_type = content_type.partition(";")[0].strip().lower()
        self._provider = provider
        self._status = status
        self._writer = ResponseWriter(response_id or f"resp_{uuid.uuid4().hex}")
        self._framing: Framing | None = None
        self._first = b""
        """The first bytes, until they show the framing."""
        self._reader: DialectReader | None = None
        self._held: list[WireMessage] = []
        self._bytes = 0
        self._is_broken = False
        try:
            self._decoder = decoder_of(content_encoding)
        except BodyError as error:
            self._decoder = decoder_of("")
            self._break(error)

    @property
    def response_id(self) -> str:
        """The id of the response."""
        return self._writer.response_id

    @property
    def dialect(self) -> str | None:
        """The name of the dialect; None while it is not known."""
        return self._dialect.name if self._dialect else None

    @property
    def is_over(self) -> bool:
        """True after the end of the response."""
        return self._writer.is_over

    @property
    def left_out(self) -> Mapping[str, int]:
        """The number of things that were left out, by a short phrase."""
        return self._writer.left_out

    @property
    def context(self) -> dict[str, str]:
        """The context fields of the response, to publish beside its events."""
        provider = self._provider or (self._dialect.provider if self._dialect else "")
        fields = {
            "response_id": self.response_id,
            "provider": provider,
            "dialect": self.dialect or "",
            "model": self._writer.model,
            "upstream_response_id": self._writer.upstream_response_id,
        }
        return {name: value for name, value in fields.items() if value}

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that these bytes of the body complete."""
        try:
            for piece in self._decoder.feed(data) if not self._is_broken else ():
                for message in self._frame(piece):
                    self._read(message)
        except BodyError as error:
            self._break(error)
        return self._writer.drain()

    def feed_message(self, value: Any) -> list[Event]:
        """Return the events of a message that is already parsed, such as an SDK's event as a dict.

        Args:
            value: the message, of JSON's types only.
        """
        if not self._is_broken:
            self._read(WireMessage(value))
        return self._writer.drain()

    def lose(self, what: str) -> None:
        """Note that a message was lost before it came here. From here on, no text is closed as whole.

        Args:
            what: a short phrase, by which it is counted in `left_out`.
        """
        self._writer.lose(what)

    def end(self, reason: EndReason = "complete") -> list[Event]:
        """Return the last events. A further call returns nothing.

        Args:
            reason: how the transfer of the body ended.
        """
        if self._writer.is_over:
            return self._writer.drain()
        for message in self._framing.end() if self._framing and reason == "complete" else ():
            self._read(message)
        self._choose_reader()
        writer = self._writer
        writer.is_cut = reason != "complete" or self._decoder.is_cut
        if reason == "cancelled":
            writer.interruption = CANCELLED
        if self._reader is not None and self._status < _ERROR_STATUS:
            self._reader.finish()
        if not writer.is_over:
            writer.end(self._ending_without_reader(reason))
        return writer.drain()

    def _ending_without_reader(self, reason: EndReason) -> ProviderEnding:
        if reason == "cancelled":
            return CANCELLED
        if self._status >= _ERROR_STATUS:
            return ProviderEnding("failed", str(self._status), message=f"HTTP status {self._status}")
        if self._writer.left_out.get(_UNKNOWN):
            return ProviderEnding(
                "failed", "dialect_unknown", message="the dialect was not detected: name it"
            )
        return INTERRUPTED

    def _frame(self, piece: bytes) -> Iterable[WireMessage]:
        self._bytes += len(piece)
        if self._bytes > BODY_BYTES:
            raise BodyError(f"the body has more than {BODY_BYTES} bytes")
        if self._framing is None:
            self._first += piece
            self._framing = self._framing_of_first()
            piece = self._first
            if self._framing is not None:
                self._first = b""
        return self._framing.feed(piece) if self._framing else []

    def _framing_of_first(self) -> Framing | None:
        """Return the framing by the content type and the first bytes; None if more are needed."""
        if self._content_type == _FRAME_TYPE or self._first[:1] == b"\0":  # the length of a frame
            return EventStreamFrames(self._writer)
        if BOM.startswith(self._first):
            return None
        text = self._first.removeprefix(BOM).lstrip()
        if not text and len(self._first) < _BLANKS:
            return None
        return JsonValues(self._writer) if text[:1] in {b"{", b"["} else ServerSentEvents(self._writer)

    def _read(self, message: WireMessage) -> None:
        if self._writer.is_over:
            if message.value is not DONE:  # some servers add it to dialects that have another end
                self._writer.leave_out("message after the end")
            return
        if self._status >= _ERROR_STATUS:
            self._read_error(message)
            return
        if self._reader is None:
            self._held.append(message)
            if not (self._is_certain or self._detect(message) or len(self._held) >= HELD_MESSAGES):
                return
            self._choose_reader()
            return
        self._reader.read(message)

    def _read_error(self, message: WireMessage) -> None:
        """Read the body of an HTTP error."""
        body = message.value[0] if isinstance(message.value, list) and message.value else message.value
        error = object_at(body, "error") or status_error(object_at(body)) or object_at(body)
        if isinstance(object_at(body).get("error"), str):
            error = {**object_at(body), "message": object_at(body)["error"], "error": None}
        provider = self._provider or (self._dialect.provider if self._dialect else "")
        if not text_at(error, "message") and (detail := text_at(error, "detail")):
            error = {**error, "message": detail}
        self._writer.end(error_ending(error, provider, self._status))

    def _detect(self, message: WireMessage) -> bool:
        """Detect the dialect of a message; return False if it shows none."""
        value = message.value
        if "amazon-bedrock-guardrailAction" in object_at(value) and not bedrock.is_bedrock(value):
            self._dialect = _INVOKE_MODEL
            return True
        if self._dialect is not None and self._dialect.recognises(value):
            return True
        if self._dialect is _INVOKE_MODEL and _own_dialect(value) is not None:
            return True  # only the path shows it: its messages are in the dialect of the model's maker
        found = next((each for each in DIALECTS if each.recognises(value)), None)
        if found is None and message.event:
            found = next((each for each in DIALECTS if each.recognises({"type": message.event})), None)
            if found is None:
                found = next((each for each in DIALECTS if each.recognises({message.event: {}})), None)
            if found is None and message.event.startswith("!"):
                found = _BY_NAME["bedrock.converse"]
            if found is None and message.event == "chunk":
                found = _INVOKE_MODEL
        if found is not None:
            self._dialect = found
        return found is not None

    def _choose_reader(self) -> None:
        """Make the reader, if the dialect is known, and let it read what was held."""
        if self._reader is not None:
            return
        held, self._held = self._held, []
        if self._dialect is None:
            self._forget(held)
            return
        beginning = self._dialect.beginning
        if held and beginning and not _begins(held, beginning):
            self._writer.numbers_events = False
        self._reader = self._dialect.make_reader(self._writer, self._provider or self._dialect.provider)
        for message in held:
            self._read(message)

    def _forget(self, held: list[WireMessage]) -> None:
        """Count messages that show no dialect; end the response if one of them is an error."""
        for _ in held:
            self._writer.leave_out(_UNKNOWN)
        if error := next(filter(None, map(_error_in, held)), None):
            self._writer.end(error_ending(error, self._provider or ""))

    def _break(self, error: BodyError) -> None:
        """End the response, because its body cannot be read any further."""
        self._is_broken = True
        writer = self._writer
        writer.lose(str(error)[:200])
        writer.is_cut = True
        writer.interruption = ProviderEnding("failed", "body_unreadable", message=str(error))
        self._choose_reader()
        if self._reader is not None and self._status < _ERROR_STATUS:
            self._reader.finish()
        writer.end(writer.interruption)


def _begins(held: list[WireMessage], beginning: str) -> bool:
    """Return True if the first message with content is the beginning of a stream, or a whole answer."""
    for message in held:
        value = object_at(message.value)
        name = text_at(value, "type") or message.event or (beginning if beginning in value else "")
        if name not in {"ping", "error"}:
            is_whole = name in {"", "message"} and not _EVENT_KEYS & value.keys()
            return name == beginning or is_whole
    return True


_EVENT_KEYS = frozenset(
    {"contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"}
)


def _error_in(message: WireMessage) -> Object:
    """Return the error in a message of an unknown dialect; an empty object if it has none."""
    value = object_at(message.value)
    return value if text_at(value, "object") == "error" else object_at(value, "error")
