"""Receive alerts as signed webhooks: verify each, drop repeats by id, answer at once."""

import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

from deltaloom import ModerationAlert

webhook = Webhook(os.environ["WEBHOOK_SECRET"])  # the secret that deltaloom signs with, whsec_…
LARGEST = 4_000_000  # maximum bytes; a digest has up to four texts
seen: set[str] = set()  # use a database if the receiver restarts, or has several processes


class Receiver(BaseHTTPRequestHandler):
    """A receiver that answers 204. A 4xx would make deltaloom give up the alert, a 5xx send it again."""

    def do_POST(self) -> None:
        """Receive one alert."""
        size = int(self.headers.get("Content-Length") or 0)
        if size > LARGEST:
            return self.answer(413)
        body = self.rfile.read(size)
        try:
            webhook.verify(body, dict(self.headers.items()), json_parse=False)
        except (WebhookVerificationError, ValueError):  # wrong signature, or older than 5 minutes
            return self.answer(401)
        if self.headers["webhook-id"] not in seen:
            alert, delivery = ModerationAlert.model_validate_json(body), json.loads(body)["delivery"]
            severity, category = delivery["severity"], delivery["category"]  # as the rules decided
            print(alert.type, severity, category, alert.response_id, alert.text, flush=True)
            seen.add(self.headers["webhook-id"])
        return self.answer(204)

    def answer(self, status: int) -> None:
        """Answer with a status and no body."""
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log no requests, so that only alerts are printed."""


with HTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Receiver) as server:
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
