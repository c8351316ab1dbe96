"""The bench that measures the worker beside what one would write otherwise.

One program, one run, one machine: a server of its own, competitors in turn, and every text compared with what
must come out. `python -m bench --help`, or `make bench`.

| file              | what                                                                  |
|-------------------|-----------------------------------------------------------------------|
| `competitors.py`  | who is compared: the table of competitors                             |
| `peers/`          | those that are not ours, a program each                               |
| `measurements/`   | what is measured: the table of measurements, a file each              |
| `goals.py`        | what must be reached: ratios of figures                               |
| `generator.py`    | responses with the shape of real ones, seeded                         |
| `entries.py`      | responses as entries: interleaved, packed, ready to be sent           |
| `ground.py`       | the server that all run on                                            |
| `processes.py`    | competitors as processes                                              |
| `drain.py`        | one run: reading what was published before, as fast as it goes        |
| `live.py`         | publishing at a steady rate, and seeing what comes out                |
| `verdict.py`      | what came out, compared with what must                                |
| `stage.py`        | what a measurement is given                                           |
| `results.py`      | every figure of every round, and what is made of them                 |
| `report.py`       | the table, and the file for machines                                  |
| `plot.py`         | the plot                                                              |
| `progress.py`     | how far it is                                                         |

Nothing here is shipped.
"""
