"""Publish events to Redis without ever delaying or breaking the caller. It needs redis-py.

publisher = deltaloom.Publisher("redis://localhost:6379")
stream = publisher.stream(tenant="acme")
stream.offer(translator.feed(chunk))
stream.end()
"""

from deltaloom.publishing.books import LossReport, PublisherCounters
from deltaloom.publishing.publisher import Publisher, ResponseStream

__all__ = ["LossReport", "Publisher", "PublisherCounters", "ResponseStream"]
