"""Writes the tables of a README from the driver that it describes, between two marks.

The documents of streamq's own repository are written by the same functions.

Design: docs/design/scaffold.md.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from streamq._capabilities import Capabilities
from streamq.driver import AnyDriver
from streamq.opening._drivers import installed_drivers, load_driver

from ._plugin_names import PluginNames

_PART = re.compile(r"(<!-- begin ([a-z0-9_ ]+) -->)\n.*?(<!-- end \2 -->)", re.DOTALL)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(head)]
    lines += [["---"] * len(lines[0])]
    lines += [list(row) for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def capabilities_table(drivers: Iterable[AnyDriver]) -> str:
    """Return the capabilities that drivers declare, a column for each."""
    drivers = list(drivers)
    rows = []
    for field in dataclasses.fields(Capabilities):
        shown = [driver.capabilities.to_dict()[field.name] for driver in drivers]
        cells = [_cell(value) for value in shown]
        rows.append([f"`{field.name}`", *cells, field.metadata["help"]])
    return table(["", *(f"`{driver.name}`" for driver in drivers), "meaning"], rows)


def settings_table(settings_type: type[BaseSettings]) -> str:
    """Return the variables that a settings class reads."""
    prefix = str(settings_type.model_config.get("env_prefix", ""))
    return table(
        ("variable", "default", "meaning"),
        (
            (f"`{prefix}{name.upper()}`", _default(field.default), field.description or "")
            for name, field in settings_type.model_fields.items()
        ),
    )


def driver_tables() -> dict[str, Callable[[], str]]:
    """Return what makes the tables of each installed driver, by the name in their marks."""
    found: dict[str, Callable[[], str]] = {}
    for name in installed_drivers():
        found[f"capabilities {name}"] = partial(_capabilities_of, name)
        found[f"settings {name}"] = partial(_settings_of, name)
    return found


def with_tables(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """Return a document with its tables renewed.

    Args:
        text: The document; ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` enclose a table.
        tables: Makes the table of each name.

    Raises:
        KeyError: A name has no table.
    """
    return _PART.sub(lambda match: f"{match[1]}\n{tables[match[2]]()}\n{match[3]}", text)


def fill_readme(plugin: Path, names: PluginNames) -> None:
    """Write the tables of a plugin that was just made and is not installed yet."""
    source, writes_bytecode = str(plugin / "src"), sys.dont_write_bytecode
    sys.path.insert(0, source)
    sys.dont_write_bytecode = True
    try:
        driver: AnyDriver = getattr(importlib.import_module(names.module), f"{names.title}Driver")
    finally:
        sys.dont_write_bytecode = writes_bytecode
        sys.path.remove(source)
        for module in [each for each in sys.modules if each.split(".")[0] == names.module]:
            del sys.modules[module]
    tables = {
        f"capabilities {names.name}": lambda: capabilities_table([driver]),
        f"settings {names.name}": lambda: settings_table(driver.settings_type),
    }
    readme = plugin / "README.md"
    readme.write_text(with_tables(readme.read_text("utf-8"), tables), "utf-8")


def _capabilities_of(name: str) -> str:
    return capabilities_table([load_driver(name)])


def _settings_of(name: str) -> str:
    return settings_table(load_driver(name).settings_type)


def _cell(value: bool | int | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else value


def _default(default: object) -> str:
    """Return a setting's default as it is written in the environment; nothing if there is none."""
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if default is None or default == "":
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"
