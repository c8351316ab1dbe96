#!/bin/sh
# Publish a response's streaming events by hand, one event per entry, with the event's fields as the entry's.
set -eu

xadd() {
    redis-cli -e -u "${REDIS_URL:-redis://localhost:6379}" \
        XADD "${DELTALOOM_PREFIX:-deltaloom}:deltas" '*' response_id resp_shell \
        item_id msg_1 output_index 0 content_index 0 "$@"
}

xadd type response.refusal.delta sequence_number 1 delta "I'm sorry,"
xadd type response.refusal.delta sequence_number 2 delta " but no."
xadd type response.refusal.done sequence_number 3 refusal "I'm sorry, but no."
