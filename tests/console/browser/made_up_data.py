"""Answers of the console's API that a test decides: honest ones, hostile ones, many and none."""

from __future__ import annotations

import math
from typing import Any, Final

SECOND: Final = 1000
MINUTE: Final = 60 * SECOND

HOSTILE: Final = {
    "script": "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">",
    "reversed": "\u202egnp.esrever\u202c \u2067\u05e9\u05dc\u05d5\u05dd\u2069 \u0645\u0631\u062d\u0628\u0627",
    "escapes": "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x00 \x9b2J \r\n next line",
    "tags": "plain\U000e0041\U000e0042 \ufeff text",
    "template": "${document.title='owned'} {{constructor.constructor('1')()}} </pre></bdi>",
    "unbroken": "x" * 3_000,
}
"""Texts that a page must show as text, by what they try."""

SORRY: Final = "I'm sorry, but I can't help with making a device that is meant to hurt people. "
THINKING: Final = (
    "The user asks about the loom's shuttle. First recall how a flying shuttle works: a cord, a picker, two "
    "boxes. "
    "Then compare it with a rapier. The answer should be short and name the year, 1733. "
)
ANSWER: Final = (
    "The flying shuttle lets one weaver throw the weft across a wide cloth alone. John Kay patented it in "
    "1733. "
    "A rapier loom does the same with a rigid arm, and needs no shuttle at all. "
)

MODELS: Final = (
    ("warp-5", "openai", "acme"),
    ("warp-5-mini", "azure.ai.openai", "globex"),
    ("sonata-4", "anthropic", "acme"),
    ("gemini-weft-2", "gcp.gemini", "initech"),
)


def part(
    kind: str, text: str, *, status: str = "open", integrity: str | None = None, **more: Any
) -> dict[str, Any]:
    """Return a part of a response on the page of now."""
    length = more.pop("length", len(text))
    shown = text[-4000:]
    return {
        "kind": kind,
        "output_index": 0,
        "content_index": more.pop("content_index", 0),
        "text": shown,
        "cut": len(shown) < length,
        "hidden": False,
        "length": length,
        "status": status,
        "integrity": integrity,
        **more,
    }


def response(number: int, at: int, **more: Any) -> dict[str, Any]:
    """Return a response on the page of now; every fifth is refused."""
    model, provider, tenant = MODELS[number % len(MODELS)]
    is_refused = number % 5 == 1
    is_over = number % 3 == 2
    status = "completed" if is_over else "open"
    integrity = ("verified", "repaired", "unverified")[number % 3] if is_over else None
    if is_refused:
        parts = [part("refusal", (SORRY * 3)[: 40 + 9 * number], status=status, integrity=integrity)]
    else:
        parts = [
            part("reasoning", (THINKING * 4)[: 60 + 37 * number], status="completed", integrity="verified")
        ]
        if number % 4:
            parts.append(
                part("output_text", (ANSWER * 4)[: 30 + 23 * number], status=status, integrity=integrity)
            )
    deliveries = [
        {"destination": "slack", "after_ms": 84, "verdict": "delivered"},
        {
            "destination": "on-call",
            "after_ms": 131,
            "verdict": "refused" if number % 10 == 6 else "delivered",
        },
    ]
    alert = {
        "id": f"alert_{number}",
        "after_ms": 3,
        "type": "deltaloom.refusal.opened",
        "severity": "warning",
        "category": "weapons",
        "deliveries": deliveries,
    }
    return {
        "id": f"resp_{number:03d}_6686a7d460e4a395f43be33ef5a96d73",
        "source": "deltaloom",
        "model": model,
        "tenant": tenant,
        "provider": provider,
        "status": status,
        "reason": None,
        "reason_class": None,
        "began": at - number * 2 * SECOND,
        "ended": at - number * SECOND if is_over else None,
        "refused": is_refused,
        "blocked": False,
        "alert": alert if is_refused else None,
        "parts": parts,
        **more,
    }


def blocked(number: int, at: int) -> dict[str, Any]:
    """Return a response that a filter stopped, without a text."""
    return response(
        number,
        at,
        status="failed",
        refused=False,
        blocked=True,
        alert=None,
        parts=[],
        reason="content_filter",
        reason_class="safety",
    )


def hostile(at: int) -> list[dict[str, Any]]:
    """Return one response for each hostile text, which is also its model, its tenant and its id."""
    return [
        response(
            n,
            at,
            id=f"resp {text}"[:900],
            model=text[:256],
            tenant=text[:256],
            parts=[part("refusal", text)],
            refused=True,
        )
        for n, text in enumerate(HOSTILE.values())
    ]


def chart(at: int, step: int = 10 * SECOND, count: int = 180) -> dict[str, Any]:
    """Return half an hour of counts with a spike of refusals near its end."""
    rows = []
    for n in range(count):
        ended = round(34 + 9 * math.sin(n / 11) + 5 * math.sin(n / 2.7) + (n * 7 % 5))
        spike = 146 <= n < 166
        refused = round(ended * 0.42) + n % 4 if spike else (n * 5 % 7 == 0) + (n % 9 == 4)
        rows.append([at - at % step - (count - 1 - n) * step, ended, refused, (n % 13 == 2) + (n % 7 == 3)])
    spikes = (
        [{"by": "model", "name": "warp-5-mini", "since": rows[146][0], "until": rows[166][0]}]
        if count == 180
        else []
    )
    return {"step_ms": step, "rows": rows, "spikes": spikes}


def now(at: int, responses: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the whole state of the page of now."""
    minute = {"ended": 214, "refused": 9, "blocked": 2, "alerts": 18, "undelivered": 1}
    counters = {"open": 37, "matching": len(responses) + (5 if responses else 0), "minute": minute}
    return {
        "at": at,
        "behind": False,
        "responses": responses,
        "gone": [],
        "counters": counters,
        "chart": chart(at),
    }


def delivery(destination: str, outcome: str = "delivered", **more: Any) -> dict[str, Any]:
    """Return how an alert ended at a destination."""
    return {
        "destination": destination,
        "outcome": outcome,
        "after_ms": 84,
        "attempts": 1,
        "answer": "200 OK: ok",
        "at": 0,
        "digest_id": None,
        "undelivered_id": None,
        "privacy": "excerpt",
        **more,
    }


def alert(number: int, at: int, **more: Any) -> dict[str, Any]:
    """Return an alert; every fourth one did not reach the second destination."""
    model, provider, tenant = MODELS[number % len(MODELS)]
    kinds = ("deltaloom.refusal.finished", "deltaloom.refusal.opened", "deltaloom.response.blocked")
    kind = kinds[number % 3]
    lost = number % 4 == 1
    second = (
        delivery(
            "on-call",
            "expired",
            after_ms=86_400_000,
            attempts=41,
            answer="timeout after 10 s",
            undelivered_id="1-0",
        )
        if lost
        else delivery("on-call", after_ms=131, answer="202 Accepted: Event processed")
    )
    return {
        "id": f"alert_{number}",
        "type": kind,
        "severity": ("info", "warning", "critical")[number % 3],
        "category": ("declined", "weapons", "filter")[number % 3],
        "rule": ("declined", "weapons", None)[number % 3],
        "route": "all",
        "kind": None if kind.endswith("blocked") else "refusal",
        "text": "" if kind.endswith("blocked") else SORRY.strip(),
        "hidden": False,
        "status": "failed" if kind.endswith("blocked") else "completed",
        "reason": "content_filter" if kind.endswith("blocked") else None,
        "reason_class": "safety" if kind.endswith("blocked") else None,
        "response_id": f"resp_{number:03d}_6686a7d460e4a395f43be33ef5a96d73",
        "item_id": None,
        "model": model,
        "tenant": tenant,
        "provider": provider,
        "raised_at": at - number * 21 * SECOND,
        "reference": f"https://requests.example/{number}",
        "reference_url": f"https://requests.example/{number}",
        "rate": None,
        "fallback": None,
        "seen": {"by": "ada", "at": at} if number == 2 else None,
        "deliveries": [delivery("slack"), second],
        **more,
    }


def spike(at: int) -> dict[str, Any]:
    """Return the alert of a spike."""
    rate = {
        "by": "model",
        "name": "warp-5-mini",
        "responses": 214,
        "refused": 62,
        "baseline_responses": 20_418,
        "baseline_refused": 204,
    }
    return alert(
        90,
        at,
        id="spike_1",
        type="deltaloom.refusal.spike",
        severity="critical",
        category="spike",
        rule="spikes",
        text="",
        response_id=None,
        model="warp-5-mini",
        tenant=None,
        reference=None,
        raised_at=at - 5 * MINUTE,
        reason=None,
        reason_class=None,
        rate=rate,
        deliveries=[delivery("slack", after_ms=96), delivery("on-call", after_ms=180, answer="202 Accepted")],
    )


def whole_part(kind: str, text: str, integrity: str | None, **more: Any) -> dict[str, Any]:
    """Return a part of a response on its own page."""
    return {
        **part(kind, text, status="completed", integrity=integrity),
        "text": text,
        "cut": False,
        "id": f"text_{kind}",
        "reason": None,
        "integrity_source": "provider",
        "explained": None,
        "delta_count": len(text) // 4,
        "duplicate_count": 2,
        "late_count": 0,
        "began": 0,
        "ended": 0,
        **more,
    }


def whole(response_id: str, at: int, parts: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """Return one response whole."""
    if parts is None:
        parts = [
            whole_part("reasoning", THINKING, "repaired"),
            whole_part("refusal", SORRY * 2, "verified", content_index=1),
            whole_part("output_text", "", "redacted", content_index=2, integrity_source=None),
        ]
    timeline = [
        [at - 60_000 + n * 37 + (1400 if n > 60 else 0), 3 + n % 5, 0 if n < 60 else 1] for n in range(100)
    ]
    return {
        "at": at,
        "id": response_id,
        "source": "deltaloom",
        "model": "warp-5-mini",
        "tenant": "globex",
        "provider": "azure.ai.openai",
        "upstream_provider": None,
        "dialect": "chat.completions",
        "upstream_response_id": "chatcmpl-AbC123",
        "safety_identifier": "shop-7f31",
        "reference": "https://requests.example/42",
        "reference_url": "https://requests.example/42",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "trace_url": "https://traces.example/trace/4bf92f3577b34da6a3ce929d0e0e4736",
        "status": "completed",
        "reason": None,
        "reason_class": None,
        "provider_category": None,
        "provider_explanation": None,
        "began": at - 60_000,
        "ended": at - 54_000,
        "refused": True,
        "blocked": False,
        "late": 0,
        "duplicates": 4,
        "parts": parts,
        "timeline": timeline,
        "timeline_cut": False,
        "alerts": [alert(1, at, response_id=response_id), alert(0, at, response_id=response_id)],
        "dead_letters": [letter(1, at)],
        "unknown": [
            "What the person asked: deltaloom never gets the request. The reference leads to it.",
            "The withheld text of one part: the provider redacted it.",
        ],
    }


def letter(
    number: int, at: int, line: str = '{"type": "response.refusal.delta", "delta": "I can'
) -> dict[str, Any]:
    """Return a dead letter."""
    return {
        "id": f"{at - number}-0",
        "reason": ("malformed_json", "oversized")[number % 2],
        "error": ("not JSON at character 49: Unterminated string", "its event has 1,100,204 bytes")[
            number % 2
        ],
        "stream": "deltaloom:deltas",
        "entry_id": f"{at - number}-1",
        "response_id": "resp_001_6686a7d460e4a395f43be33ef5a96d73",
        "deliveries": 1,
        "failed_at": at - number * MINUTE,
        "line": line,
        "cut": False,
    }


def wilson(number: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share."""
    if not of:
        return 0.0, 1.0
    z, p = 1.96, number / of
    middle = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return max(0.0, middle - half), min(1.0, middle + half)


def rates(at: int, by: str, name: str | None) -> dict[str, Any]:
    """Return rates of six hours; one model has a spike."""
    step, count = 5 * MINUTE, 72
    groups: list[dict[str, Any]] = []
    for number, names in enumerate(MODELS):
        group_name = names[("model", "provider", "tenant").index(by)]
        if any(group["name"] == group_name for group in groups) or name not in {None, group_name}:
            continue
        rows, total = [], [0, 0, 0]
        for n in range(count):
            responses = round(60 + 25 * math.sin(n / 9 + number) + n * 13 % 11)
            share = 0.31 if number == 1 and n > 58 else 0.012 + 0.008 * math.sin(n / 5 + number)
            refused, stopped = round(responses * share), (n * (number + 2)) % 17 == 0
            total = [a + b for a, b in zip(total, (responses, refused, stopped), strict=True)]
            rows.append(
                [
                    at - at % step - (count - 1 - n) * step,
                    responses,
                    refused,
                    int(stopped),
                    *wilson(refused, responses),
                    0,
                    0,
                ]
            )
        spikes = [{"since": rows[59][0], "until": None, "score": 35.5}] if number == 1 else []
        change = (
            {"before": 0.011, "now": 0.071, "score": 14.2}
            if number == 1
            else {"before": 0.014, "now": 0.012, "score": -0.6}
        )
        groups.append(
            {
                "by": by,
                "name": group_name,
                "total": [*total, *wilson(total[1], total[0]), 0, 0.01],
                "rows": rows,
                "spikes": spikes,
                "change": change,
            }
        )
    return {"at": at, "since": at - 6 * 60 * MINUTE, "step_ms": step, "groups": groups, "unknown": []}


def health(at: int) -> dict[str, Any]:
    """Return the state of a deployment in which one worker is silent."""
    workers = [
        {
            "id": "worker-1-7d9f",
            "state": "reads",
            "pending": 4,
            "seen": at - 800,
            "partitions": [0, 1],
        },
        {
            "id": "worker-2-0c31",
            "state": "silent",
            "pending": 4,
            "seen": at - 95_000,
            "partitions": [2, 3],
        },
    ]
    partitions = [
        {
            "name": f"deltaloom:{{{n}}}:deltas",
            "length": 10_412 + n,
            "waiting": 90_112 if n == 3 else 12,
            "pending": 500 if n == 3 else 4,
            "oldest_ms": 95_300 if n == 3 else 14,
            "open": 9 + n,
            "dead_letters": 2 if n == 1 else 0,
            "undelivered": 1 if n == 0 else 0,
        }
        for n in range(4)
    ]
    destinations = [
        {
            "name": "slack",
            "type": "slack",
            "state": "enabled",
            "pending": 0,
            "oldest_ms": None,
            "undelivered": 0,
            "last": {"outcome": "delivered", "at": at - 4000, "answer": "200 OK: ok"},
        },
        {
            "name": "on-call",
            "type": "pagerduty",
            "state": "enabled",
            "pending": 3,
            "oldest_ms": 71_000,
            "undelivered": 1,
            "last": {"outcome": "expired", "at": at - 61_000, "answer": "timeout after 10 s"},
        },
    ]
    return {
        "at": at,
        "findings": [
            {
                "level": "error",
                "text": "worker-2-0c31 has not been seen for 95 s: its partitions 2 and 3 wait. "
                "Restart it, or see the runbook.",
            },
            {
                "level": "warning",
                "text": "on-call does not confirm alerts: 3 are pending, the oldest for 71 s.",
            },
        ],
        "workers": workers,
        "partitions": partitions,
        "dead_letters": {"count": 2, "newest": [letter(1, at), letter(2, at)]},
        "destinations": destinations,
        "unknown": ["Whether producers lost events before they reached Redis, unless they report it."],
    }


def hits(at: int, words: str) -> list[dict[str, Any]]:
    """Return what a search found."""
    excerpt = SORRY * 2
    start = excerpt.find("device")
    return [
        {
            "response_id": f"resp_{n:03d}_6686a7d460e4a395f43be33ef5a96d73",
            "family": "text",
            "kind": ("refusal", "reasoning", "output_text")[n % 3],
            "model": MODELS[n % 4][0],
            "tenant": MODELS[n % 4][2],
            "at": at - n * 3_600_000,
            "status": "completed",
            "integrity": "verified",
            "excerpt": excerpt if words != "script" else HOSTILE["script"],
            "hidden": False,
            "marks": [[start, start + 6]],
        }
        for n in range(6)
    ]
