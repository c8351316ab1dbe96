"""The bench that sends hostile input beside honest load: it must cost only itself.

It has a server, workers, a relay and producers of its own. Honest producers publish at a steady rate, first
alone, then beside hostile ones; honest results, times, memory and what is stored are held against limits.
`python -m hostile --help`, or `make hostile`.

| file            | what                                                               |
|-----------------|--------------------------------------------------------------------|
| `generators/`   | hostile entries, one generator a kind, seeded                      |
| `entry.py`      | an entry, and the dice that generators make it with                |
| `victims.py`    | honest responses that strangers come near to                       |
| `load.py`       | honest producers, and hostile ones beside them                     |
| `attacker.py`   | stores what a generator makes, at its rate                         |
| `probe.py`      | an honest model that is suddenly refused, and an honest event type |
| `limits.py`     | what hostile input may cost                                        |
| `ledger.py`     | hostile entries, and what came of each                             |
| `verdict.py`    | honest results, compared; how long they took                       |
| `watch.py`      | memory of processes, commands of the server, bytes of keys         |
| `output.py`     | the workers' logs, and what the command prints                     |
| `receiver.py`   | takes alerts; as another destination it asks to be left alone      |
| `deployment.py` | workers and relays, and their settings                             |
| `deliveries.py` | alerts that were raised, and those that arrived                    |
| `limited.py`    | the real command, with a limit of memory                           |
| `bench.py`      | a whole run                                                        |
| `report.py`     | what a person sees of it                                           |

Load, processes, the model of what must come out, and its comparison are those of `chaos`. Nothing here is
shipped.
"""
