"""Test the names of spans against those of OpenTelemetry's conventions, and what a span may say."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes, messaging_attributes
from opentelemetry.semconv.attributes import error_attributes, server_attributes
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import format_span_id, format_trace_id

from deltaloom.address import Address
from service.observability.tracing import conventions

if TYPE_CHECKING:
    from types import ModuleType


def values(module: ModuleType) -> dict[str, str]:
    """Return the constants of a module by their value."""
    return {value: name for name, value in vars(module).items() if isinstance(value, str) and name.isupper()}


def test_names_are_those_of_the_conventions() -> None:
    """Use only attributes that the conventions have and do not call deprecated, and some of our own."""
    standard = {
        value: inspect.getsource(module).partition(f'{name}: Final = "{value}"')[2].strip()
        for module in (messaging_attributes, gen_ai_attributes, error_attributes, server_attributes)
        for value, name in values(module).items()
    }
    ours = {value for value in values(conventions) if "." in value and "/" not in value}
    assert {value for value in ours if not value.startswith("deltaloom.")} <= standard.keys()
    for value in ours & standard.keys():
        if not value.startswith("gen_ai."):  # later versions have these in another repository
            assert "Deprecated" not in standard[value].split('"""')[1], value


def test_schema_exists() -> None:
    """Name a published schema."""
    assert conventions.SCHEMA_URL in {schema.value for schema in Schemas}


HEX = "0123456789abcdef"


@given(
    st.text(HEX, min_size=32, max_size=32),
    st.text(HEX, min_size=16, max_size=16),
    st.text(HEX, min_size=2, max_size=2),
)
@example("0" * 32, "1" * 16, "01")
@example("1" * 32, "0" * 16, "01")
def test_traceparent(trace: str, span: str, flags: str) -> None:
    """Read what a `traceparent` says; ids of zeros are invalid."""
    context = conventions.span_context(f"00-{trace}-{span}-{flags}")
    if not (int(trace, 16) and int(span, 16)):
        assert context is None
        return
    assert context is not None
    assert (format_trace_id(context.trace_id), format_span_id(context.span_id)) == (trace, span)
    assert context.trace_flags.sampled == bool(int(flags, 16) & 1)
    assert context.is_remote


@given(st.text(max_size=60))
@example(f"ff-{'1' * 32}-{'1' * 16}-01")
@example(f"00-{'A' * 32}-{'1' * 16}-01")
@example(f"00-{'1' * 32}-{'1' * 16}-01\n")
@example(f"00-{chr(0x661) * 32}-{'1' * 16}-01")
def test_anything_else_is_no_traceparent(text: str) -> None:
    """Ignore everything else that a producer may write."""
    assert conventions.span_context(text) is None


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        (None, None),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
        ("ft:gpt-4o:acme:for-bob:id", "ft:gpt-4o"),
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
        ("claude-3-5-sonnet@20240620", "claude-3-5-sonnet@20240620"),
        ("meta-llama/Llama-3.3-70B", "meta-llama/Llama-3.3-70B"),
        ("arn:aws:bedrock:eu-west-1:123456789012:provisioned-model/x", None),
        ("bob@example.com", None),
        ("I cannot help", None),
        ("x" * 101, None),
        ("", None),
    ],
)
def test_names_of_models(model: str | None, shown: str | None) -> None:
    """Pass on names only, without the customer of a fine-tuned model."""
    assert conventions.name_of_model(model) == shown


def test_types_of_alerts() -> None:
    """Pass on known types only."""
    assert conventions.name_of_alert_type("deltaloom.refusal.opened") == "deltaloom.refusal.opened"
    assert conventions.name_of_alert_type("bob said") == "(other)"
    assert conventions.name_of_provider("openai") == "openai"
    assert conventions.name_of_provider("bob said") is None


@pytest.mark.parametrize(
    ("url", "attributes"),
    [
        ("redis://user:hush@server:7000/0", {"server.address": "server", "server.port": 7000}),
        ("rediss://server", {"server.address": "server", "server.port": 6379}),
        ("redis://[::1]:6380", {"server.address": "::1", "server.port": 6380}),
        ("unix://user:hush@/run/redis.sock", {"server.address": "/run/redis.sock"}),
        ("redis+cluster://a,b", {}),
        ("redis+sentinel://a/main", {}),
    ],
)
def test_server(url: str, attributes: dict[str, object]) -> None:
    """Name a single server, without its login."""
    assert conventions.server_attributes(Address.parse(url)) == attributes
