#!/bin/sh
# Print alerts with redis-cli and jq, in a consumer group that begins with the oldest alert.
set -eu

cli() { redis-cli -e --json -u "${REDIS_URL:-redis://localhost:6379}" "$@"; }
stream="${DELTALOOM_PREFIX:-deltaloom}:alerts"
cli XGROUP CREATE "$stream" pager 0 MKSTREAM >/dev/null 2>&1 || true # the group exists already

after=0 # first the entries that this consumer has not acknowledged yet
while true; do
    entries=$(cli XREADGROUP GROUP pager pager-1 COUNT 100 BLOCK 1000 STREAMS "$stream" "$after")
    printf '%s' "$entries" | jq -r '.[]?[][1] | .[index("__data__") + 1] | fromjson | "\(.response_id) \(.type) \(.text)"'
    ids=$(printf '%s' "$entries" | jq -r '.[]?[][0]')
    [ -z "$ids" ] || cli XACK "$stream" pager $ids >/dev/null
    after='>' # then new entries
done
