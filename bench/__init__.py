"""A bench that compares the worker with what one would write otherwise.

One program measures all competitors in turn, in one run on one machine with its own server, and compares each
text with the expected one. See `python -m bench --help`, or run `make bench`. To measure only cost and
latency under steady load and without traffic, in about a quarter of an hour:

    ARGS="--only paced,idle,start-up --rounds 1" make bench

| file              | contents                                                              |
|-------------------|-----------------------------------------------------------------------|
| `competitors.py`  | the table of competitors                                              |
| `peers/`          | the competitors other than the worker, one program each               |
| `measurements/`   | the table of measurements, one file each                              |
| `goals.py`        | the table of goals                                                    |
| `quantity.py`     | what a goal is for: a figure, or a ratio of two                       |
| `generator.py`    | seeded responses with the shape of real ones                          |
| `entries.py`      | responses as entries: interleaved, packed, ready to be sent           |
| `ground.py`       | the server that all competitors use                                   |
| `processes.py`    | processes of a competitor                                             |
| `drain.py`        | a run: a competitor reads a prepared input as fast as it can          |
| `live.py`         | a run: a competitor keeps up with a publisher                         |
| `publisher.py`    | a publisher in a process of its own                                   |
| `observer.py`     | observing when the outputs come                                       |
| `counters.py`     | processor time and commands of a period                               |
| `verdict.py`      | comparison of the outputs with the expected ones                      |
| `stage.py`        | the context of a measurement                                          |
| `results.py`      | the figures of all rounds, and their statistics                       |
| `report.py`       | the table for people, and the file for machines                       |
| `plot.py`         | the plots                                                             |
| `panels/`         | the panels of the plots                                               |
| `progress.py`     | progress output                                                       |
| `errors.py`       | the error of the bench itself                                         |
| `archive.py`      | a program of its own: the archive's speed                             |
| `copies.py`       | a program of its own: the cost of a copied stream for its caller      |
| `offers.py`       | a program of its own: the cost of the publisher for its caller        |
| `scaling.py`      | a program of its own: a day of the autoscaler                         |
| `tap_delays.py`   | a program of its own: the delay that a tap adds                       |

This package is not shipped.
"""
