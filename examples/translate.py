"""Translate a stream of Chat Completions to the events that a worker reads."""

from deltaloom.dialects import Translator

BODY = b"""\
data: {"choices": [{"index": 0, "delta": {"refusal": "No."}, "finish_reason": "stop"}]}

data: [DONE]

"""

translator = Translator(path="/v1/chat/completions")
events = translator.feed(BODY) + translator.end()
for event in events:
    print(event["type"], translator.context["response_id"])
