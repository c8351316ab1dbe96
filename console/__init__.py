"""`deltaloom console`: show responses, alerts, rates and health in a browser.

From the bottom:

| modules                                                | content                                          |
|--------------------------------------------------------|--------------------------------------------------|
| `json_bodies`, `console_errors`, `queries`             | JSON of answers and errors, limits of parameters |
| `growing_text`, `live_responses`, `minute_counts`      | newest state of the responses under way, bounded |
| `delta_decoding`, `stream_places`, `live_reading`      | read all streams, without a group                |
| `live_views`, `event_stream`                           | frames of a filter, and a client that gets them  |
| `text_policy`, `text_access`, `looks`, `seen_marks`    | who may see texts, who looked, seen alerts       |
| `short_fields`, `newest_entries`, `…_rows`             | pages of entries, as rows of a table, bounded    |
| `rate_counts`, `rate_chart`, `wilson`                  | the workers' counts, and their intervals         |
| `…_page`, `response_parts`, `integrity_words`          | the answer of each page of the API               |
| `alert_actions`, `archive_reading`, `read_only_client` | actions, the archive, read-only scripts          |
| `access`, `page_files`, `site`, `console_server`       | users, files, routes, connections                |
| `console_app`, `console_command`, `console_settings`   | the composition, the command, its settings       |
| `console_figures`, `vendoring`                         | metrics; the libraries of the pages              |

It writes nothing to Redis; only with `--allow-actions`, a resent alert leaves the undelivered ones. It
imports the service and the archive, and neither imports it.
"""
