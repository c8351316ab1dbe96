"""A bench that kills and disturbs workers, relays and server, and checks that nothing is lost or repeated.

It starts its own server, workers and producers, injects faults by a seeded plan, and compares the outputs
with those that the generator expects. See `python -m chaos --help`, or run `make chaos`.

| file                  | contents                                                         |
|-----------------------|------------------------------------------------------------------|
| `model.py`            | the contract as a program with one reader: a response's outputs  |
| `generator.py`        | seeded responses of all kinds                                    |
| `verdict.py`          | comparison of the outputs with the expectations                  |
| `deliveries.py`       | comparison of delivered alerts with raised ones                  |
| `plan.py`             | seeded plan of faults and their times                            |
| `proxy.py`            | proxy between workers and server that disturbs connections       |
| `processes.py`        | processes of server, workers and relays                          |
| `faults.py`           | injection of the planned faults                                  |
| `producer.py`         | producers that know exactly which entries are stored             |
| `receiver.py`         | receiver of alerts that fails at random                          |
| `observer.py`         | reader of the outputs during a run                               |
| `bench.py`            | a whole run                                                      |
| `archivers.py`        | archivers and their database, killed: a program of its own       |
| `ending.py`           | reliable cancellation of tasks and of the program                |
| `takeover.py`         | time until others have taken over a killed worker's entries      |
| `sabotaged_worker.py` | a worker without a safeguard, which the bench must detect        |
| `producers.py`        | the bench of `make producers`; `producing.py` is its producer    |
| `taps.py`             | the bench of `make taps`                                         |
| `tap_traffic.py`      | its upstream and clients                                         |
| `rebuilding.py`       | a worker that rebuilds the texts of both                         |
| `prometheus.py`       | a real Prometheus whose counters must agree with the accounts    |
| `report.py`           | the result for people and machines                               |
| `program.py`          | the parts that all benches share as programs                     |
| `live.py`             | progress output during a run                                     |

This package is not shipped.
"""
