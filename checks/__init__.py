"""Checks of names and words that ruff does not have, run by `make lint`.

| module        | finds                                                                          |
|---------------|--------------------------------------------------------------------------------|
| `english.py`  | docstrings that open with a fragment, and "an" before "URL"                    |
| `names.py`    | two classes or two modules of the program with one name                        |
| `commits.py`  | commit subjects over 72 characters, for the commits that a branch adds (in CI) |
"""
