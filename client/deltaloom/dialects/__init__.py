"""Translators of providers' streams: bytes in, events of the Responses API out.

They need only the standard library, make no connections, and never raise an error for what a provider sends:

    translator = Translator(path="/v1/chat/completions")
    for chunk in body:
        publish(translator.feed(chunk), translator.context)
    publish(translator.end(), translator.context)
"""

from deltaloom.dialects.translator import (
    DIALECTS,
    Dialect,
    EndReason,
    Event,
    Translator,
    dialect_named,
    dialect_of_path,
)

__all__ = ["DIALECTS", "Dialect", "EndReason", "Event", "Translator", "dialect_named", "dialect_of_path"]
