"""Copy the answers that vLLM serves: `vllm serve MODEL --middleware copied_vllm.Copied`."""

import os
from typing import Any

import deltaloom


class Copied(deltaloom.TeeMiddleware):
    """The middleware with its publisher, since vLLM passes it only the application."""

    def __init__(self, app: Any) -> None:
        super().__init__(app, deltaloom.Publisher(os.environ.get("REDIS_URL", "redis://localhost:6379")))
