"""Take alerts as signed webhooks: verify each, drop repeats by their id, answer at once."""

import os
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

from deltaloom import ModerationAlert

webhook = Webhook(os.environ["WEBHOOK_SECRET"])  # the one that deltaloom signs with, whsec_…
LARGEST = 4_000_000  # bytes; a digest carries three texts and one more
seen: set[str] = set()  # of a receiver that restarts, or has several processes, this belongs into a database


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 for what it has: a 4xx would make deltaloom give the alert up, a 5xx send it again."""

    def do_POST(self) -> None:
        """Take one alert."""
        size = int(self.headers.get("Content-Length") or 0)
        if size > LARGEST:
            return self.answer(413)
        body = self.rfile.read(size)
        try:
            webhook.verify(body, dict(self.headers.items()), json_parse=False)
        except (WebhookVerificationError, ValueError):  # not ours, or of more than 5 minutes ago
            return self.answer(401)
        if self.headers["webhook-id"] not in seen:
            alert = ModerationAlert.model_validate_json(body)
            print(alert.type, alert.severity, alert.response_id, alert.text, flush=True)
            seen.add(self.headers["webhook-id"])
        return self.answer(204)

    def answer(self, status: int) -> None:
        """Answer with a status alone."""
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing but alerts."""


with HTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Receiver) as server:
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
