"""A bench that compares the worker with what one would write otherwise.

One program measures all competitors in turn, in one run on one machine with its own server, and compares each
text with the expected one. See `python -m bench --help`, or run `make bench`.

| file              | contents                                                              |
|-------------------|-----------------------------------------------------------------------|
| `competitors.py`  | the table of competitors                                              |
| `peers/`          | the competitors other than the worker, one program each               |
| `measurements/`   | the table of measurements, one file each                              |
| `goals.py`        | goals: ratios of figures                                              |
| `generator.py`    | seeded responses with the shape of real ones                          |
| `entries.py`      | responses as entries: interleaved, packed, ready to be sent           |
| `ground.py`       | the server that all competitors use                                   |
| `processes.py`    | processes of a competitor                                             |
| `drain.py`        | a run: a competitor reads a prepared input as fast as it can          |
| `live.py`         | publishing at a steady rate, and observing the outputs                |
| `verdict.py`      | comparison of the outputs with the expected ones                      |
| `stage.py`        | the context of a measurement                                          |
| `results.py`      | the figures of all rounds, and their statistics                       |
| `report.py`       | the table for people, and the file for machines                       |
| `plot.py`         | the plot                                                              |
| `progress.py`     | progress output                                                       |

This package is not shipped.
"""
