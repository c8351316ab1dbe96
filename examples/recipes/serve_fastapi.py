"""Copy the answers of a model that FastAPI or Starlette serves."""

import os

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

import deltaloom

publisher = deltaloom.Publisher(os.environ.get("REDIS_URL", "redis://localhost:6379"))
app = FastAPI()
app.add_middleware(deltaloom.TeeMiddleware, publisher=publisher)


@app.post("/v1/chat/completions")
async def chat() -> StreamingResponse:
    chunks = [
        b'data: {"choices": [{"index": 0, "delta": {"refusal": "No."}, "finish_reason": "stop"}]}\n\n',
        b"data: [DONE]\n\n",
    ]
    return StreamingResponse(iter(chunks), media_type="text/event-stream")
