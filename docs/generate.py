"""Write the fact tables of the documents from the code that they describe.

python docs/generate.py            # renew them
python docs/generate.py --check    # exit code 1 if one is out of date
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from streamq import Capabilities, Settings, installed_drivers, load_driver
from streamq.devserver import DevServer
from streamq.driver import DriverSettings
from streamq.temporal.generic._schema import stream_schema
from streamq.testing import _catalogue as kit
from streamq.testing import _contract_page as contract_page

DOCS = Path(__file__).parent
ROOT = DOCS.parent
SCHEMA = DOCS / "streamq-stream.schema.json"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    lines = [list(head)]
    lines += [["---"] * len(lines[0])]
    lines += [list(row) for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def capabilities() -> str:
    """Return the capabilities that every installed backend declares."""
    drivers = [load_driver(name) for name in installed_drivers()]
    rows = []
    for field in dataclasses.fields(Capabilities):
        shown = [driver.capabilities.to_dict()[field.name] for driver in drivers]
        cells = [_cell(value) for value in shown]
        rows.append([f"`{field.name}`", *cells, field.metadata["help"]])
    return table(["", *(f"`{driver.name}`" for driver in drivers), "meaning"], rows)


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


def settings(settings_type: type[Settings] | type[DriverSettings]) -> str:
    """Return the variables that a settings class reads."""
    prefix = str(settings_type.model_config.get("env_prefix", ""))
    return table(
        ("variable", "default", "meaning"),
        (
            (f"`{prefix}{name.upper()}`", _default(field.default), field.description or "")
            for name, field in settings_type.model_fields.items()
        ),
    )


def hooks() -> str:
    """Return the hooks that a harness may supply, and their purposes."""
    return table(
        ("hook", "what it does", "what its checks prove", "mandatory for"),
        (
            (
                f"`{hook.signature}`",
                _markdown(hook.does),
                _markdown(hook.proves),
                ", ".join(f"`{flag}`" for flag in hook.mandatory_for),
            )
            for hook in kit.hooks()
        ),
    )


def _markdown(text: str) -> str:
    """Return a docstring's text with its literals and references as Markdown has them."""
    return re.sub(r":\w+:`~?([^`]+)`|``([^`]+)``", lambda m: f"`{m[1] or m[2]}`", text)


def checks() -> str:
    """Return every check of the suite, by group."""
    parts = []
    for group, found in itertools.groupby(kit.catalogue(), lambda check: check.group):
        rows = (
            (
                f"`{check.name.removeprefix('test_')}`",
                _markdown(check.guarantee),
                ", ".join(f"`{flag}`" for flag in check.conditions.capabilities),
                ", ".join(f"`{hook}`" for hook in check.conditions.hooks),
            )
            for check in found
        )
        heads = ("check", "why anyone cares", "requires", "needs")
        parts.append(f"### {group.capitalize()}\n\n{table(heads, rows)}")
    return "\n\n".join(parts)


def generators() -> dict[str, Callable[[], str]]:
    """Return the table for each marker."""
    found: dict[str, Callable[[], str]] = {"capabilities": capabilities}
    found["settings"] = partial(settings, Settings)
    found["hooks"], found["checks"] = hooks, checks
    found["contract"], found["duties"] = contract_page.contract, contract_page.duties
    found["errors"], found["parts"] = contract_page.errors, contract_page.parts
    found["harness"] = contract_page.harness
    found["server"] = partial(contract_page.described_class, DevServer)
    for name in installed_drivers():
        found[f"settings {name}"] = partial(settings, load_driver(name).settings_type)
    return found


def renewed(text: str) -> str:
    """Return a document with its tables renewed."""
    known = generators()

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{known[match[2]]()}\n{match[3]}"

    pattern = r"(<!-- begin ([a-z0-9_ ]+) -->)\n.*?(<!-- end \2 -->)"
    return re.sub(pattern, fill, text, flags=re.DOTALL)


def documents() -> Iterable[tuple[Path, str]]:
    """Return every document and what it should be."""
    for path in sorted([*DOCS.glob("*.md"), *ROOT.glob("plugins/*/README.md")]):
        yield path, renewed(path.read_text())
    yield SCHEMA, json.dumps(stream_schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Renew or check every document."""
    check = "--check" in sys.argv
    stale = []
    for path, new in documents():
        if not path.exists() or path.read_text() != new:
            stale.append(path.relative_to(ROOT))
            if not check:
                path.write_text(new)
    outcome = "is out of date: run python docs/generate.py" if check else "renewed"
    for name in stale:
        print(name, outcome)
    return 1 if stale and check else 0


if __name__ == "__main__":
    sys.exit(main())
