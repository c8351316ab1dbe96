"""Break the code on purpose and see whether the tests notice.

`python -m mutation sabotage`, or `make sabotage`, breaks it in the ways listed in `sabotages.toml`: each has
to turn `make test` red. `python -m mutation sample`, or `make mutate`, makes small random changes, called
mutants, in Python and Lua, and reports those that no test notices.

| file                | content                                                             |
|---------------------|---------------------------------------------------------------------|
| `change.py`         | one change of one file                                              |
| `python_rules.py`   | the mutants of a Python file                                        |
| `lua_rules.py`      | the mutants of a Lua script                                         |
| `checkout.py`       | a throw-away copy of the tree, with a virtual environment of its own |
| `suite.py`          | runs tests in a copy                                                |
| `nearest.py`        | the tests that probably notice a change, to be run first            |
| `trial.py`          | tries changes one by one, in one or more copies                     |
| `sample.py`         | chooses mutants by a seed, and has the goals                        |
| `sabotage.py`       | reads `sabotages.toml`                                              |
| `equivalent.py`     | reads `equivalent.toml`: mutants that change no behaviour           |
| `report.py`         | progress, tables, and a file for programs                           |
| `command.py`        | the command line                                                    |

It has no dependency on a mutation testing library: cosmic-ray and mutmut change Python only, and half of what
must not break here is Lua.

Nothing here is shipped.
"""
