"""A bench that sends hostile input next to honest load, and checks that it harms only itself.

It starts its own server, workers, relay and producers. Honest producers publish at a steady rate, first
alone, then next to hostile ones. The bench compares honest results, times, memory and stored bytes with
limits. See `python -m hostile --help`, or run `make hostile`.

| file            | contents                                                            |
|-----------------|---------------------------------------------------------------------|
| `generators/`   | seeded generators of hostile entries, one per kind                  |
| `entry.py`      | an entry, and the random choices of generators                      |
| `victims.py`    | honest responses that hostile entries refer to                      |
| `load.py`       | honest producers, with hostile ones next to them                    |
| `attacker.py`   | producer that stores a generator's entries at its rate              |
| `probe.py`      | an honest model that is suddenly refused, and an honest event type  |
| `limits.py`     | limits of what hostile input may cost                               |
| `ledger.py`     | hostile entries, and the outputs of each                            |
| `verdict.py`    | comparison of honest results with expectations, and their times     |
| `watch.py`      | memory of processes, slow commands of the server, bytes of keys     |
| `output.py`     | checks of the workers' logs, and of the output of commands          |
| `receiver.py`   | receiver of alerts, with a second destination that asks for pauses  |
| `deployment.py` | workers and relays, and their settings                              |
| `deliveries.py` | comparison of delivered alerts with raised ones                     |
| `limited.py`    | the real command with a memory limit                                |
| `bench.py`      | a whole run                                                         |
| `report.py`     | the result for people and machines                                  |

Load, processes, the model of the expected outputs and the comparison come from `chaos`. This package is not
shipped.
"""
