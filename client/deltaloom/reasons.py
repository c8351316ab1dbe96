"""Classify the reasons for which responses end early: a table of the values of all providers.

A provider's own value stays verbatim in `reason`. The class is its meaning to the people who operate a model.
A value that is not in the table is `unknown`, never guessed. This module needs only the standard library.

Values are compared case-insensitively, since gateways change the case. `field` is the path to the value in
the provider's own answer, so that a translator can distinguish two meanings of one value.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

KnownReasonClass = Literal[
    "refusal", "safety", "policy", "guardrail", "recitation", "length", "cancelled", "error", "unknown"
]
ReasonClass = KnownReasonClass | str
"""Class of a reason, in the order of the literals: the model declined; a safety filter, a usage policy, an
operator's guardrail, or a filter of copied material stopped the response; the response reached a length
limit; somebody cancelled it; it failed for a technical reason; the table does not have the value. Later
versions may add classes."""

REFUSED: frozenset[ReasonClass] = frozenset({"refusal"})
"""Classes of responses that the model itself refused."""

STOPPED: frozenset[ReasonClass] = frozenset({"safety", "policy", "guardrail", "recitation"})
"""Classes of responses that a filter, policy or guardrail stopped because of their content."""


class Reason(NamedTuple):
    """A row of the table: a provider's value in a field, its class, and the page that documents it."""

    provider: str
    """Name of the provider, as in OpenTelemetry's `gen_ai.provider.name` if it is listed there."""
    field: str
    value: str
    reason_class: KnownReasonClass
    source: str


class _Field(NamedTuple):
    """A field of a provider's answer, with the page that documents its values."""

    provider: str
    field: str
    source: str

    def __call__(self, reason_class: KnownReasonClass, *values: str) -> tuple[Reason, ...]:
        return tuple(Reason(self.provider, self.field, value, reason_class, self.source) for value in values)


_OPENAI = "https://platform.openai.com/docs/api-reference/responses/object"
_AZURE = "https://learn.microsoft.com/azure/ai-foundry/openai/concepts/content-filter"
_GEMINI = "https://ai.google.dev/api/generate-content"
_BEDROCK = "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html"
_ANTHROPIC = "https://docs.claude.com/en/api/messages"
_CHAT = "https://platform.openai.com/docs/api-reference/chat/streaming"

_incomplete = _Field("openai", "incomplete_details.reason", _OPENAI)
_code = _Field("openai", "error.code", _OPENAI)
_choice = _Field("openai", "finish_reason", _CHAT)
_azure_code = _Field("azure.ai.openai", "error.code", _AZURE)
_azure_inner = _Field("azure.ai.openai", "error.innererror.code", _AZURE)
_stop = _Field("anthropic", "stop_reason", _ANTHROPIC)
_anthropic_error = _Field("anthropic", "error.type", "https://docs.claude.com/en/api/errors")
_finish = _Field("gcp.gemini", "finishReason", _GEMINI)
_prompt = _Field("gcp.gemini", "promptFeedback.blockReason", _GEMINI)
_converse = _Field("aws.bedrock", "stopReason", _BEDROCK)
_guardrail = _Field(
    "aws.bedrock",
    "amazon-bedrock-guardrailAction",
    "https://docs.aws.amazon.com/bedrock/latest/userguide/guardrails-use-invoke-model-api.html",
)
_mistral = _Field("mistral_ai", "finish_reason", "https://docs.mistral.ai/api/")
_cohere = _Field("cohere", "finish_reason", "https://docs.cohere.com/reference/chat-stream")
_zai = _Field("z_ai", "finish_reason", "https://docs.z.ai/api-reference/llm/chat-completion")
_alibaba = _Field("alibaba_cloud", "error.code", "https://help.aliyun.com/zh/model-studio/error-code")
_vercel = _Field("vercel", "finishReason", "https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol")
_deltaloom = _Field("deltaloom", "reason", "docs/contract.md")

REASONS: tuple[Reason, ...] = (
    # The Responses API comes first: if only the value is known, the first row decides.
    *_incomplete("length", "max_output_tokens", "max_tokens"),
    *_incomplete("safety", "content_filter"),
    *_code(
        "policy",
        "bio_policy",
        "content_policy_violation",
        "cyber_policy",
        "cyber_policy_violation",
        "image_content_policy_violation",
        "invalid_prompt",  # "may violate the usage policy"; a malformed one is an invalid_request_error
        "misalignment_policy_violation",
        "policy_violation",
    ),
    *_code("safety", "content_filter", "moderation_blocked", "safety_violation"),
    *_code(
        "error",
        "context_length_exceeded",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_request_error",
        "model_not_found",
        "overloaded",
        "rate_limit_exceeded",
        "server_error",
        "service_unavailable",
        "timeout",
        "vector_store_timeout",
    ),
    *_choice("length", "length"),
    *_choice("safety", "content_filter"),
    *_azure_code("safety", "content_filter"),
    *_azure_inner("policy", "ResponsibleAIPolicyViolation"),
    *_stop("refusal", "refusal"),
    *_stop("length", "max_tokens", "model_context_window_exceeded"),
    *_anthropic_error("error", "api_error", "overloaded_error", "rate_limit_error", "timeout_error"),
    *_finish("length", "MAX_TOKENS"),
    *_finish("safety", "SAFETY", "IMAGE_SAFETY"),
    *_finish("policy", "BLOCKLIST", "PROHIBITED_CONTENT", "IMAGE_PROHIBITED_CONTENT", "SPII"),
    *_finish("guardrail", "MODEL_ARMOR"),
    *_finish("recitation", "RECITATION", "IMAGE_RECITATION"),
    *_finish("error", "MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL"),
    *_finish("unknown", "OTHER", "LANGUAGE", "FINISH_REASON_UNSPECIFIED"),
    *_prompt("safety", "SAFETY", "IMAGE_SAFETY"),
    *_prompt("policy", "BLOCKLIST", "JAILBREAK", "OTHER", "PROHIBITED_CONTENT"),
    *_prompt("guardrail", "MODEL_ARMOR"),
    *_converse("guardrail", "guardrail_intervened"),
    *_converse("safety", "content_filtered"),
    *_converse("length", "max_tokens", "model_context_window_exceeded"),
    *_converse("refusal", "refusal"),
    *_converse("error", "malformed_model_output", "malformed_tool_use"),
    *_guardrail("guardrail", "INTERVENED"),
    *_mistral("length", "length", "model_length"),
    *_mistral("error", "error"),
    *_cohere("safety", "ERROR_TOXIC"),
    *_cohere("length", "ERROR_LIMIT", "MAX_TOKENS"),
    *_cohere("error", "ERROR", "TIMEOUT"),
    *_zai("safety", "sensitive"),
    *_zai("error", "network_error"),
    *_alibaba("safety", "data_inspection_failed", "DataInspectionFailed"),
    *_vercel("safety", "content-filter"),
    *_deltaloom("cancelled", "cancelled", "client_disconnected"),
    *_deltaloom("unknown", "idle_timeout", "open_limit"),
)

_BY_VALUE: dict[str, list[Reason]] = {}
for _row in REASONS:
    _BY_VALUE.setdefault(_row.value.casefold(), []).append(_row)


def reason_class(value: str, *, provider: str | None = None, field: str | None = None) -> KnownReasonClass:
    """Return the class of a provider's value; `unknown` if the value is not in the table.

    Args:
        value: the provider's value, in upper or lower case.
        provider: prefer the rows of this provider.
        field: prefer the rows of this field, more than those of the provider. Among equal rows, the first
            one counts.
    """
    rows = _BY_VALUE.get(value.casefold())
    if not rows:
        return "unknown"
    return max(rows, key=lambda row: (row.provider == provider) + 2 * (row.field == field)).reason_class
