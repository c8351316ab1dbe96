"""Ten tests that explain deltaloom. Start here.

A producer adds the streaming events of a language model to a Redis stream. Workers read the events, rebuild
the texts and raise alerts. A relay delivers the alerts. Each test shows one thing that you can rely on, with
a real server. Workers run within the test; those that are killed, or must be separate, are real processes, as
relays are.

| read               | to learn                                                                           |
|--------------------|------------------------------------------------------------------------------------|
| `test_texts.py`    | how events become texts, even if they come late, twice, broken or never            |
| `test_alerts.py`   | when an alert is raised, and how it reaches a webhook                              |
| `test_workers.py`  | why you can run any number of workers, and kill them                               |
| `test_handlers.py` | how to handle events of your own                                                   |

`loom.py` has the vocabulary of these tests: `loom` is a deltaloom for one test. `docs/clients.md` and
`docs/handlers.md` have complete programs. Edge cases are in the other folders of `tests/`, which mirror the
code.
"""
