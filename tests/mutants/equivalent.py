"""Reads the list of mutants that behave as the driver does, each with the reason.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

from .mutants import Mutant

LIST = Path(__file__).with_name("equivalent.toml")
MOST = 0.1
"""The largest share of mutants that may be called equivalent."""

_FIELDS = ("driver", "module", "function", "operator", "before", "after")


class ListError(Exception):
    """The list of equivalent mutants has to be corrected."""


def read_equivalent(path: Path = LIST) -> dict[tuple[str | int, ...], str]:
    """Return the reason of each equivalent mutant, by :attr:`Mutant.key`.

    Raises:
        ListError: An entry lacks something, or comes twice.
    """
    found: dict[tuple[str | int, ...], str] = {}
    for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("equivalent", []):
        missing = [name for name in (*_FIELDS, "reason") if not isinstance(entry.get(name), str)]
        if missing or not entry["reason"].strip():
            raise ListError(f"{path.name}: {entry} lacks {', '.join(missing) or 'a reason'}")
        key = (*(entry[name] for name in _FIELDS), entry.get("occurrence", 1))
        if key in found:
            raise ListError(f"{path.name}: this entry comes twice: {entry}")
        found[key] = entry["reason"]
    return found


def check_list(
    equivalent: dict[tuple[str | int, ...], str], mutants: Iterable[Mutant], drivers: Iterable[str]
) -> None:
    """Raise unless every entry of these drivers is a mutant that is possible today.

    Raises:
        ListError: The code has changed since; the judgement has to be made anew.
    """
    wanted, possible = set(drivers), {mutant.key for mutant in mutants}
    for key in equivalent:
        if key[0] in wanted and key not in possible:
            raise ListError(
                f"{LIST.name}: no mutant is this one any more: {key}; the code has changed, "
                "so judge it anew or remove the entry"
            )


def entry_of(mutant: Mutant) -> str:
    """Return a mutant as an entry of the list, still without its reason."""
    lines = ["[[equivalent]]"]
    for name in _FIELDS:
        lines.append(f"{name} = {_quoted(getattr(mutant, name))}")
    if mutant.occurrence > 1:
        lines.append(f"occurrence = {mutant.occurrence}")
    return "\n".join([*lines, 'reason = ""'])


def _quoted(text: str) -> str:
    if "'" not in text:
        return f"'{text}'"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
