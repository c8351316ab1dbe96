"""Break the code on purpose, and check that the tests notice.

`python -m mutation sabotage`, or `make sabotage`, breaks the code in the ways listed in `sabotages.toml`:
each must turn `make test` red. `python -m mutation sample`, or `make mutate`, makes small random changes,
called mutants, in Python and Lua, and reports those that no test notices.

| file                | content                                                              |
|---------------------|----------------------------------------------------------------------|
| `change.py`         | a change of a file                                                   |
| `python_rules.py`   | the mutants of a Python file                                         |
| `lua_rules.py`      | the mutants of a Lua script                                          |
| `checkout.py`       | a temporary copy of the tree, with its own virtual environment       |
| `suite.py`          | runs of tests in a copy                                              |
| `nearest.py`        | the tests that probably notice a change, to be run first             |
| `trial.py`          | trials of changes, in one or more copies                             |
| `sample.py`         | the choice of mutants by a seed, and the goals                       |
| `sabotage.py`       | reader of `sabotages.toml`                                           |
| `equivalent.py`     | reader of `equivalent.toml`: mutants that change no behaviour        |
| `report.py`         | progress, tables, and a file for programs                            |
| `command.py`        | the command line                                                     |

It uses no mutation testing library: cosmic-ray and mutmut change Python only, and half of the critical code
is Lua.

This package is not shipped.
"""
