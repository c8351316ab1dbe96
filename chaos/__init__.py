"""The bench that tries to break the promise: nothing lost, nothing twice, whatever dies.

It has a server, workers and producers of its own, kills and disturbs them by a seeded plan, and compares
what came out with what the generator knows. `python -m chaos --help`, or `make chaos`.

| file           | what                                                                    |
|----------------|-------------------------------------------------------------------------|
| `model.py`     | the contract as a program of one reader: what must come out of a response |
| `generator.py` | responses of every kind, seeded                                         |
| `verdict.py`   | what came out, compared with what must                                  |
| `plan.py`      | which fault when, seeded                                                |
| `proxy.py`     | what stands between the workers and the server, and tears               |
| `processes.py` | the server and the workers, started and ended by their handles          |
| `faults.py`    | does what the plan says                                                 |
| `producer.py`  | stores entries, and knows exactly which are stored                      |
| `observer.py`  | reads the outputs while the run goes on                                 |
| `bench.py`     | a whole run                                                             |
| `ending.py`     | ends tasks for certain                                                  |
| `takeover.py`   | after a kill: how long until others have what the dead one held         |
| `sabotaged_worker.py` | a worker without a safeguard, which the bench must find out       |
| `report.py`    | what a person sees of it                                                |
| `program.py`   | what it shares with other benches as a program                          |
| `live.py`      | how a run goes, shown while it goes                                     |

Nothing here is shipped.
"""
