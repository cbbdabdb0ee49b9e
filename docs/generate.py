"""Write the fact tables of the documents from the code that they describe.

python docs/generate.py            # renew them
python docs/generate.py --check    # exit code 1 if one is out of date
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from streamq import Settings, installed_drivers, load_driver
from streamq.cli.plugin._readme import (
    capabilities_table,
    driver_tables,
    settings_table,
    table,
    with_tables,
)
from streamq.devserver import DevServer
from streamq.temporal.generic._schema import stream_schema
from streamq.testing import _catalogue as kit
from streamq.testing import _contract_page as contract_page

DOCS = Path(__file__).parent
ROOT = DOCS.parent
SCHEMA = DOCS / "streamq-stream.schema.json"


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
    drivers = [load_driver(name) for name in installed_drivers()]
    return {
        **driver_tables(),
        "capabilities": partial(capabilities_table, drivers),
        "settings": partial(settings_table, Settings),
        "hooks": hooks,
        "checks": checks,
        "contract": contract_page.contract,
        "duties": contract_page.duties,
        "errors": contract_page.errors,
        "parts": contract_page.parts,
        "harness": contract_page.harness,
        "server": partial(contract_page.described_class, DevServer),
    }


def documents() -> Iterable[tuple[Path, str]]:
    """Return every document and what it should be."""
    tables = generators()
    for path in sorted([*DOCS.glob("*.md"), *ROOT.glob("plugins/*/README.md")]):
        yield path, with_tables(path.read_text(), tables)
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
