"""Classify the reasons for which responses end early: a table of the values of all providers.

A provider's own value stays verbatim in `reason`. The class is its meaning to the people who operate a model.
A value that is not in the table is `unknown`, never guessed. This module needs only the standard library.

Values are compared case-insensitively, since gateways change the case. A number counts only for its own
provider, since others use the same numbers. `field` is the path to the value in
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
    is_recorded: bool
    """True if a public recording of a stream has the value. Other values come from their source alone."""


class _Field(NamedTuple):
    """A field of a provider's answer, with the page that documents its values."""

    provider: str
    field: str
    source: str

    def __call__(self, reason_class: KnownReasonClass, *values: str) -> tuple[Reason, ...]:
        return tuple(
            Reason(
                *(self.provider, self.field, value, reason_class, self.source),
                is_recorded=(self.provider, self.field, value) in _RECORDED,
            )
            for value in values
        )


_RECORDED: frozenset[tuple[str, str, str]] = frozenset(
    {
        ("openai", "incomplete_details.reason", "max_output_tokens"),
        ("openai", "error.code", "insufficient_quota"),
        ("openai", "finish_reason", "length"),
        ("anthropic", "stop_reason", "refusal"),
        ("anthropic", "stop_reason", "max_tokens"),
        ("gcp.gemini", "finishReason", "MAX_TOKENS"),
        ("gcp.gemini", "finishReason", "SAFETY"),
        ("gcp.gemini", "promptFeedback.blockReason", "SAFETY"),
        ("aws.bedrock", "stopReason", "guardrail_intervened"),
        ("aws.bedrock", "stopReason", "max_tokens"),
        ("aws.bedrock", "amazon-bedrock-guardrailAction", "INTERVENED"),
        ("aws.bedrock", "guardrailTrace.action", "INTERVENED"),
        ("groq", "error.code", "tool_use_failed"),
        ("deepseek", "finish_reason", "length"),
        ("mistral_ai", "finish_reason", "length"),
        ("openrouter", "finish_reason", "length"),
        ("vllm", "finish_reason", "length"),
        ("ollama", "done_reason", "length"),
    }
)
"""Provider, field and value of the rows that public recordings have."""


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
_bedrock_error = _Field(
    "aws.bedrock",
    ":exception-type",
    "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html",
)
_agent = _Field(
    "aws.bedrock",
    "guardrailTrace.action",
    "https://docs.aws.amazon.com/bedrock/latest/APIReference/API_agent-runtime_GuardrailTrace.html",
)
_titan = _Field(
    "aws.bedrock",
    "completionReason",
    "https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-text.html",
)
_gemini_error = _Field("gcp.gemini", "error.status", "https://ai.google.dev/gemini-api/docs/troubleshooting")
_interaction = _Field(
    "gcp.gemini", "interaction.status", "https://ai.google.dev/gemini-api/docs/interactions"
)
_mistral = _Field("mistral_ai", "finish_reason", "https://docs.mistral.ai/api/")
_cohere = _Field("cohere", "finish_reason", "https://docs.cohere.com/reference/chat-stream")
_deepseek = _Field("deepseek", "finish_reason", "https://api-docs.deepseek.com/api/create-chat-completion")
_groq = _Field("groq", "error.code", "https://console.groq.com/docs/errors")
_xai = _Field("x_ai", "finish_reason", "https://github.com/xai-org/xai-proto")
_openrouter = _Field(
    "openrouter",
    "error.metadata.error_type",
    "https://openrouter.ai/docs/api/reference/errors-and-debugging",
)
_openrouter_finish = _Field(
    "openrouter", "finish_reason", "https://openrouter.ai/docs/api/reference/overview"
)
_ollama = _Field("ollama", "done_reason", "https://docs.ollama.com/api/chat")
_vllm = _Field("vllm", "finish_reason", "https://docs.vllm.ai/en/latest/api/vllm/v1/engine/")
_zai = _Field("z_ai", "finish_reason", "https://docs.z.ai/api-reference/llm/chat-completion")
_zai_code = _Field("z_ai", "error.code", "https://docs.z.ai/api-reference/api-code")
_alibaba = _Field("alibaba_cloud", "error.code", "https://help.aliyun.com/zh/model-studio/error-code")
_minimax = _Field(
    "minimax", "base_resp.status_code", "https://platform.minimax.io/docs/api-reference/errorcode"
)
_vercel = _Field("vercel", "finishReason", "https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol")
_deltaloom = _Field("deltaloom", "reason", "docs/contract.md")

REASONS: tuple[Reason, ...] = (
    # The Responses API comes first: if only the value is known, the first row decides.
    *_incomplete("length", "max_output_tokens", "max_tokens"),
    *_incomplete("safety", "content_filter"),
    *_incomplete("unknown", "max_messages", "steered"),
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
        "data_residency_mismatch",
        "empty_image_file",
        "failed_to_download_image",
        "image_file_not_found",
        "image_file_too_large",
        "image_parse_error",
        "image_too_large",
        "image_too_small",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_base64_image",
        "invalid_image",
        "invalid_image_format",
        "invalid_image_mode",
        "invalid_image_url",
        "invalid_request_error",
        "model_not_found",
        "overloaded",
        "rate_limit_exceeded",
        "server_error",
        "service_unavailable",
        "timeout",
        "unsupported_image_media_type",
        "vector_store_timeout",
    ),
    *_choice("length", "length"),
    *_choice("safety", "content_filter"),
    *_azure_code("safety", "content_filter"),
    *_azure_inner("policy", "ResponsibleAIPolicyViolation"),
    *_stop("refusal", "refusal"),
    *_stop("length", "max_tokens", "model_context_window_exceeded"),
    *_anthropic_error(
        "error",
        "api_error",
        "authentication_error",
        "billing_error",
        "invalid_request_error",
        "not_found_error",
        "overloaded_error",
        "permission_error",
        "rate_limit_error",
        "request_too_large",
        "timeout_error",
    ),
    *_finish("length", "MAX_TOKENS", "CONTINUATION"),
    *_finish("safety", "SAFETY", "IMAGE_SAFETY"),
    *_finish(
        "policy",
        "BLOCKLIST",
        "ESCALATION",  # "filtered by an escalation rule"
        "IMAGE_PROHIBITED_CONTENT",
        "PROHIBITED_CONTENT",
        "PUP_LIMITED_DISABLED",  # the account violated the policy of prohibited uses
        "SPII",
    ),
    *_finish("guardrail", "MODEL_ARMOR"),
    *_finish("recitation", "RECITATION", "IMAGE_RECITATION"),
    *_finish(
        "error",
        "LANGUAGE",  # the language is not supported
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "NO_IMAGE",
        "TOO_MANY_TOOL_CALLS",
        "UNEXPECTED_TOOL_CALL",
    ),
    *_finish("unknown", "OTHER", "IMAGE_OTHER", "FINISH_REASON_UNSPECIFIED"),
    *_prompt("safety", "SAFETY", "IMAGE_SAFETY"),
    *_prompt("policy", "BLOCKLIST", "JAILBREAK", "OTHER", "PROHIBITED_CONTENT"),
    *_prompt("guardrail", "MODEL_ARMOR"),
    *_prompt("unknown", "BLOCKED_REASON_UNSPECIFIED"),
    *_gemini_error(
        "error",
        "DEADLINE_EXCEEDED",
        "FAILED_PRECONDITION",
        "INTERNAL",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "UNAUTHENTICATED",
        "UNAVAILABLE",
    ),
    *_interaction("cancelled", "cancelled"),
    *_interaction("length", "requires_continuation"),  # the limit of tokens of a request
    *_interaction("unknown", "incomplete", "budget_exceeded"),
    *_converse("guardrail", "guardrail_intervened"),
    *_converse("safety", "content_filtered"),
    *_converse("length", "max_tokens", "model_context_window_exceeded"),
    *_converse("refusal", "refusal"),
    *_converse("error", "malformed_model_output", "malformed_tool_use"),
    *_guardrail("guardrail", "INTERVENED"),
    *_agent("guardrail", "INTERVENED"),
    *_titan("safety", "CONTENT_FILTERED"),
    *_titan("length", "LENGTH"),
    *_titan("error", "RAG_QUERY_WHEN_RAG_DISABLED"),
    *_bedrock_error(
        "error",
        "accessDeniedException",
        "badGatewayException",
        "conflictException",
        "dependencyFailedException",
        "internalServerException",
        "modelErrorException",
        "modelNotReadyException",
        "modelStreamErrorException",
        "modelTimeoutException",
        "resourceNotFoundException",
        "serviceQuotaExceededException",
        "serviceUnavailableException",
        "throttlingException",
        "validationException",
    ),
    *_mistral("length", "length", "model_length"),
    *_mistral("error", "error"),
    *_cohere("safety", "ERROR_TOXIC"),
    *_cohere("length", "ERROR_LIMIT", "MAX_TOKENS"),
    *_cohere("error", "ERROR", "TIMEOUT"),
    *_cohere("cancelled", "USER_CANCEL"),
    *_deepseek("length", "length"),
    *_deepseek("safety", "content_filter"),
    *_deepseek("error", "insufficient_system_resource"),
    *_groq("error", "capacity_exceeded", "json_validate_failed", "tool_use_failed"),
    *_xai("length", "length", "REASON_MAX_LEN", "REASON_MAX_CONTEXT"),
    *_xai("error", "REASON_TIME_LIMIT"),
    *_openrouter("policy", "content_policy_violation"),
    *_openrouter("refusal", "refusal"),
    *_openrouter("length", "max_tokens_exceeded", "token_limit_exceeded"),
    *_openrouter(
        "error",
        "authentication",
        "context_length_exceeded",
        "invalid_prompt",  # malformed, unlike OpenAI's
        "invalid_request",
        "not_found",
        "payload_too_large",
        "payment_required",
        "precondition_failed",
        "provider_overloaded",
        "provider_unavailable",
        "rate_limit_exceeded",
        "server",
        "string_too_long",
        "timeout",
        "unmapped",
        "unprocessable",
    ),
    *_openrouter("unknown", "permission_denied"),  # also a guardrail's block
    *_openrouter_finish("length", "length"),
    *_openrouter_finish("safety", "content_filter"),
    *_openrouter_finish("error", "error"),
    *_ollama("length", "length"),
    *_vllm("length", "length"),
    *_vllm("cancelled", "abort"),
    *_vllm("error", "error"),
    *_zai("safety", "sensitive"),
    *_zai("length", "length", "model_context_window_exceeded"),
    *_zai("error", "network_error"),
    *_zai_code("safety", "1301"),
    *_zai_code("policy", "1300"),
    *_alibaba("safety", "data_inspection_failed", "DataInspectionFailed"),
    *_minimax("safety", "1026", "1027"),  # sensitive input, sensitive output
    *_minimax("error", "1000", "1001", "1002", "1004", "1008", "1024", "1033"),
    *_vercel("safety", "content-filter"),
    *_vercel("length", "length"),
    *_vercel("error", "error"),
    *_deltaloom("cancelled", "cancelled", "client_disconnected"),
    *_deltaloom("error", "body_unreadable", "dialect_unknown", "stream_interrupted"),
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
    if rows and value.isdecimal():
        rows = [row for row in rows if row.provider == provider]
    if not rows:
        return "unknown"
    return max(rows, key=lambda row: (row.provider == provider) + 2 * (row.field == field)).reason_class
