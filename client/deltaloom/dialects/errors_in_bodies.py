"""Read the errors of all providers: in a stream, or as the body of an HTTP error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from deltaloom import limits
from deltaloom.dialects.azure_filters import block_of, filtered_categories
from deltaloom.dialects.json_values import Object, object_at, text_at, word_at, words_at
from deltaloom.dialects.writing import BLOCKING, KEY_CHARACTERS, NAMES_LIMIT, ProviderEnding
from deltaloom.reasons import reason_class

if TYPE_CHECKING:
    from collections.abc import Iterator

_CODE_CHARACTERS: Final = limits.REASON + KEY_CHARACTERS
_MESSAGE_CHARACTERS: Final = limits.EXPLANATION + KEY_CHARACTERS
"""Maximum characters of a code and of a message that are read, for the writer, which masks keys in them."""

_TECHNICAL: Final = frozenset({401, 402, 404, 408, 413, 429, 498})
"""HTTP statuses below 500 that never mean a policy; 498 is Groq's for a lack of capacity."""

_COHERE_UNSAFE: Final = 498
"""Cohere's HTTP status for a request that may violate its guidelines
(https://github.com/cohere-ai/cohere-developer-experience/pull/189)."""


class _Phrase(NamedTuple):
    """A message by which a provider says that a policy stopped the request, without a code that says so."""

    pattern: re.Pattern[str]
    reason_class: str
    reason: str = ""
    """The provider's code for it; empty: the words are the reason."""


_PHRASES: Final = (
    _Phrase(re.compile("Content Exists Risk"), "safety"),  # DeepSeek, HTTP 400
    _Phrase(
        re.compile(r"Content violates usage guidelines|SAFETY_CHECK_TYPE_\w+"), "policy"
    ),  # xAI, HTTP 403
    _Phrase(
        re.compile(r"content management policy|ResponsibleAIPolicyViolation"), "policy"
    ),  # Azure, HTTP 400
    _Phrase(re.compile(r"blocked by content filtering policy"), "safety"),  # Anthropic
    _Phrase(re.compile(r"blocked (?:in|out)put: please adjust your prompt"), "policy"),  # Cohere
    _Phrase(re.compile(r"DataInspectionFailed|data_inspection_failed"), "safety"),  # Alibaba
    _Phrase(
        re.compile("potentially unsafe or sensitive content|可能包含不安全或敏感内容"), "safety", "1301"
    ),  # Z.ai, HTTP 400
    _Phrase(re.compile("input new_sensitive"), "safety", "1026"),  # MiniMax, HTTP 422
    _Phrase(re.compile("output new_sensitive"), "safety", "1027"),
    _Phrase(
        re.compile("Request blocked: prompt injection patterns detected"), "guardrail"
    ),  # OpenRouter, 403
)
_NO_CODES = frozenset({"", "None", "null"})
"""Codes that some gateways send instead of none."""

_CHECK = re.compile(r"SAFETY_CHECK_TYPE_(\w{1,60})")


class _Code(NamedTuple):
    """A code of an error, with its provider, which the field may show."""

    value: str
    provider: str


def error_ending(error: Object, provider: str, status: int = 0) -> ProviderEnding:
    """Return the ending for an error.

    A code of a policy takes precedence over a general one, wherever the provider put it; then a message or a
    field that is known to mean a policy; then the first code that is no number. An error has no class if
    neither the table nor the HTTP status gives one.

    Args:
        error: the error object of the provider.
        provider: name of the provider in `deltaloom.reasons`.
        status: HTTP status of the answer; 0 if it was none.
    """
    codes = [
        _Code(code.value[:_CODE_CHARACTERS], code.provider)
        for code in _codes(error, provider)
        if code.value not in _NO_CODES
    ]
    message = (text_at(error, "message") or text_at(error, "Message"))[:_MESSAGE_CHARACTERS]
    category = ", ".join(sorted(_categories(error)))
    for code in codes:
        found = reason_class(code.value, provider=code.provider)
        if found in BLOCKING:
            return ProviderEnding("failed", code.value, found, category, message, message)
    for phrase in _PHRASES:
        if match := phrase.pattern.search(message):
            check = _CHECK.search(message)
            category = category or (check.group(1) if check else "")
            reason = phrase.reason or match.group()
            return ProviderEnding("failed", reason, phrase.reason_class, category, message, message)
    named = [code for code in codes if not code.value.isdecimal()]
    first = (named or codes or [_Code(str(status) if status else "error", provider)])[0]
    if provider == "cohere" and status == _COHERE_UNSAFE:
        return ProviderEnding("failed", first.value, "policy", category, message, message)
    if block_of(error).is_blocked or _is_moderated(error):
        return ProviderEnding("failed", first.value, "safety", category, message, message)
    if reason_class(first.value, provider=first.provider) == "length":
        return ProviderEnding("failed", first.value, "length", message=message)
    is_technical = _is_technical(first, codes, status)
    return ProviderEnding("failed", first.value, "error" if is_technical else "", message=message)


def status_error(body: Object) -> Object:
    """Return the error in MiniMax's `base_resp`; an empty object if it has none."""
    status = object_at(body, "base_resp")
    code = word_at(status, "status_code")
    return {} if code in {"", "0"} else {"code": code, "message": text_at(status, "status_msg")}


def _is_technical(first: _Code, codes: list[_Code], status: int) -> bool:
    """Return True if the table or a status says that an error is technical, or if it has neither."""
    if reason_class(first.value, provider=first.provider) == "error" or not (codes or status):
        return True
    numbers = [int(code.value) for code in codes if code.value.isdecimal() and len(code.value) == 3]  # noqa: PLR2004
    return any(each in _TECHNICAL or 500 <= each < 600 for each in (status, *numbers))  # noqa: PLR2004


def _codes(error: Object, provider: str) -> Iterator[_Code]:
    """Yield the codes of an error and of the errors that caused it, at most four deep."""
    for _ in range(4):
        for field in ("code", "type", "status", "reason"):
            yield _Code(word_at(error, field), provider)
        yield _Code(text_at(error, "__type").rpartition("#")[2], provider)  # AWS, behind a namespace
        if kind := word_at(error, "metadata", "error_type"):
            yield _Code(kind, "openrouter")
        inner = object_at(error, "innererror") or object_at(error, "error")
        if not inner:
            return
        error = inner


def _is_moderated(error: Object) -> bool:
    """Return True for OpenRouter's error of a prompt that a moderation flagged (HTTP 403)."""
    metadata = object_at(error, "metadata")
    return isinstance(metadata.get("flagged_input"), str) and isinstance(metadata.get("reasons"), list)


def _categories(error: Object) -> set[str]:
    """Return the categories that Azure's content filters or OpenRouter's moderation name in an error."""
    names = filtered_categories(object_at(error, "innererror")) or filtered_categories(error)
    if _is_moderated(error):
        names |= {name[:NAMES_LIMIT] for name in words_at(error, "metadata", "reasons")}
    return set(sorted(names | block_of(error).categories)[:NAMES_LIMIT])
