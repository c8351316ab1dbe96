"""Test that keys in the messages of providers never leave a translator."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from deltaloom.dialects import Translator
from deltaloom.dialects.key_masking import without_keys
from tests.client.dialects.streams import sse

KEYS = (
    "sk-proj-Ab1Cd2Ef3Gh4Ij5Kl6",
    "sk-ant-api03-Ab1Cd2-Ef3Gh4",
    "sk-Ab1C***********wxyZ",
    "gsk_Ab1Cd2Ef3Gh4Ij5Kl6",
    "xai-Ab1Cd2Ef3Gh4Ij5Kl6",
    "hf_Ab1Cd2Ef3Gh4Ij5Kl6",
    "nvapi-Ab1Cd2Ef3Gh4Ij5Kl6",
    "AIzaSyAb1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr9",
    "AKIAIOSFODNN7EXAMPLE",
    "ya29.Ab1Cd2Ef3Gh4Ij5Kl6",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.Ab1Cd2Ef3",
    "0123456789abcdef0123456789abcdef",
    "Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr9St0Uv",
)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("message", ["Incorrect key {}.", "key='{}' is wrong", "{}", "({})"])
def test_keys_are_masked(key: str, message: str) -> None:
    """Mask each kind of key, and keep the words around it."""
    assert without_keys(message.format(key)) == message.format("***")


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Authorization: Bearer hunter22x is wrong", "Authorization: Bearer *** is wrong"),
        ("Invalid token: hunter22", "Invalid token: ***"),
        ("Incorrect API key provided: hunter22", "Incorrect API key provided: ***"),
        ('{"api_key": "hunter22"}', '{"api_key": "***"}'),
        ("https://user:hunter22@example.com/x", "https://***@example.com/x"),
        ("redis://default:hunter22@db:6379/0", "redis://***@db:6379/0"),
        ("secret: rediss://default:pw@db", "secret: ***://***@db"),
        ("Credential=AKIAIOSFODNN7EXAMPLE/2026, Signature=0a1b2c3d", "Credential=***, Signature=***"),
    ],
)
def test_what_follows_the_name_of_a_secret_is_masked(message: str, shown: str) -> None:
    """Mask values of any form behind such a name."""
    assert without_keys(message) == shown


@pytest.mark.parametrize(
    "message",
    [
        "The user's tokens: 123456 of 200000 tokens",
        "max_tokens: 4096 is too large",
        "The model gpt-4-32k-0613-a-very-long-name does not exist",
        "Request req_011CSHoEeqs5C35K2UUqR7Fy, trace 2ae2140e-1bee-4d33-8866-e134b6b4cf66",
        "basic authentication failed: bearer token required",
        "API key not valid. Please pass a valid API key.",
        "See https://platform.example.com:8080/docs/errors",
    ],
)
def test_other_words_stay(message: str) -> None:
    """Keep ids, numbers, names and addresses, by which an operator finds the cause."""
    assert without_keys(message) == message


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("field", ["message", "code", "type"])
@pytest.mark.parametrize(
    ("dialect", "status"),
    [
        ("openai.chat", 401),
        ("openai.chat", 200),
        ("anthropic.messages", 401),
        ("openai.responses", 401),
        ("openai.responses", 200),
        ("gemini.generate_content", 200),
        ("cohere.chat", 401),
        ("ollama.chat", 200),
        ("bedrock.converse", 200),
    ],
)
def test_no_key_leaves_a_translator(dialect: str, status: int, field: str, key: str) -> None:
    """Mask keys in every field of an error, also one that the limit of the field cuts."""
    for before in ("Incorrect API key provided: ", "x " * 122):
        translator = Translator(dialect, status=status)
        body = json.dumps({"type": "error", "error": {field: before + key}}).encode()
        events = translator.feed(body) + translator.end()
        assert key[:12] not in json.dumps(events)


def test_no_key_leaves_a_response() -> None:
    """Mask keys in the error of a Responses snapshot."""
    error = {"code": "invalid_api_key", "message": f"Incorrect API key provided: {KEYS[0]}"}
    translator = Translator()
    body = sse([{"type": "response.failed", "response": {"status": "failed", "error": error}}])
    events = translator.feed(body) + translator.end()
    assert events[-1]["response"]["error"]["message"] == "Incorrect API key provided: ***"


@pytest.mark.parametrize("length", range(8192 - len(KEYS[0]), 8192))
def test_no_part_of_a_key_leaves_a_response_at_the_limit(length: int) -> None:
    """Mask a key in the error of a snapshot as a whole, though the limit of the message cuts it."""
    error = {"message": "." * (length - 1) + " " + KEYS[0]}
    translator = Translator()
    body = sse([{"type": "response.failed", "response": {"status": "failed", "error": error}}])
    events = translator.feed(body) + translator.end()
    assert "sk" not in json.dumps(events)


def test_the_texts_of_a_model_stay() -> None:
    """Keep what a model writes, even if it looks like a key."""
    translator = Translator("openai.chat")
    choice = {"index": 0, "delta": {"refusal": f"I can't use {KEYS[0]}."}, "finish_reason": "stop"}
    events = translator.feed(sse([{"choices": [choice]}])) + translator.end()
    assert KEYS[0] in json.dumps(events)


@example(["sk-", "sk-", "sk-", "://", ":", "sk-", "@"])
@example(["://", "a", "a", "a", "a", "a", "1", ":", "a", "@"])
@example(["api key", "://", "aaaaaa", ":", "a", "@"])
@example(["bearer ", "a", "a", "a", "a", "a", "a", "://", ":", "a", "@"])
@given(st.lists(st.sampled_from(["sk-", "bearer ", "api key", " ", ":", "a", "1", "://", "@", "*", "é"])))
def test_masking_twice_is_masking_once(pieces: list[str]) -> None:
    """Find nothing in a text that is masked already."""
    once = without_keys("".join(pieces))
    assert without_keys(once) == once


@pytest.mark.parametrize("piece", ["sk-", "bearer ", "api key ", "://a:", "a1", "basic", "token: ", "*", " "])
def test_hostile_messages_take_no_time(piece: str) -> None:
    """Need time in proportion to the message: 0.2 seconds of the processor are a hundred times as much."""
    start = time.process_time()
    without_keys(piece * (4352 // len(piece)))
    assert time.process_time() - start < 0.2
