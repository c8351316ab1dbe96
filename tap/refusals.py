"""Answers of the tap itself, in place of an upstream's."""

from __future__ import annotations

import json

from aiohttp import web


class RefusalError(Exception):
    """A reason for the tap to answer a request itself.

    Args:
        status: status of the answer.
        reason: short name, for the counts.
        message: sentence for the person who reads the answer.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.message = message

    def answer(self) -> web.Response:
        """Return the answer, in the form that SDKs read errors in."""
        body = {
            "error": {"message": f"deltaloom tap: {self.message}", "type": "tap_error", "code": self.reason}
        }
        answer = web.Response(
            status=self.status,
            body=json.dumps(body).encode(),
            content_type="application/json",
            headers={"Server": "deltaloom-tap"},
        )
        answer.force_close()
        return answer
