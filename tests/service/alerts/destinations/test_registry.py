"""Test the list of destinations, from which everything else about them follows."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from importlib import import_module

from service.alerts import destinations
from service.alerts.deciding.config import parse
from service.alerts.destinations.registry import TYPES


def test_every_file_of_a_destination_is_listed() -> None:
    """List each file that ends with a row `destination`. Otherwise `alerts.toml` could not name its type."""
    modules = [f"{destinations.__name__}.{each.name}" for each in pkgutil.iter_modules(destinations.__path__)]
    rows = {name: getattr(import_module(name), "destination", None) for name in modules}
    missing = [name for name, row in rows.items() if row is not None and row not in TYPES.values()]
    assert not missing, f"service/alerts/destinations/registry.py does not list {missing}"


def test_a_table_gets_the_options_of_its_type() -> None:
    """Select the model of a table by its `type`."""
    config = parse("[destinations.one]\ntype = 'command'\ncommand = ['true']", "alerts.toml")
    assert isinstance(config.destinations["one"], TYPES["command"].options)


def test_slow_libraries_are_imported_only_by_a_destination_in_use() -> None:
    """Read `alerts.toml` without the libraries that send, which take long to load."""
    code = (
        "import sys; import service.alerts.deciding.config; "
        "print({'aiohttp', 'apprise', 'standardwebhooks'} & sys.modules.keys())"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "set()"
