"""Finds the sentences of the contract: the documentation of what :mod:`streamq.driver` defines.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Mapping
from typing import Any

from streamq import driver


def documented(where: str) -> str:
    """Return the documentation of an object of the contract, on one line.

    Args:
        where: A class, method, function or attribute, such as ``ChunkQueue.append``,
            ``Entry.index`` or ``Capabilities.durable``.

    Raises:
        LookupError: The contract has no such object, or does not document it.
    """
    name, _, member = where.partition(".")
    owner = getattr(driver, name, None)
    if owner is None:
        raise LookupError(f"streamq.driver has no {name!r}")
    if not member:
        text = inspect.getdoc(owner) or ""
    elif inspect.isclass(owner) and member in (attributes := attributes_of(owner)):
        text = attributes[member]
    else:
        text = inspect.getdoc(inspect.getattr_static(owner, member, None)) or ""
    if not text or (member and not hasattr(owner, member) and member not in attributes_of(owner)):
        raise LookupError(f"streamq.driver does not document {where!r}")
    return one_line(text)


def one_line(text: str) -> str:
    """Return a text with its white space normalised, as sentences are compared."""
    return " ".join(text.split())


def attributes_of(owner: type[Any]) -> Mapping[str, str]:
    """Return the documented attributes of a class, each with its documentation.

    A text below the attribute, an entry in the section "Attributes" of the class's docstring, and
    the help of a dataclass's field are such documentation; the attribute has all that there are.
    """
    found: dict[str, list[str]] = {}
    if dataclasses.is_dataclass(owner):
        for field in dataclasses.fields(owner):
            if "help" in field.metadata:
                found.setdefault(field.name, []).append(str(field.metadata["help"]))
    for name, text in (*_listed(owner), *_below(owner)):
        found.setdefault(name, []).append(text)
    return {name: one_line(" ".join(texts)) for name, texts in found.items()}


def _listed(owner: type[Any]) -> list[tuple[str, str]]:
    """Return the entries of the section "Attributes"."""
    section = re.search(r"^Attributes:\n((?: +.*\n?|\n)+)", inspect.getdoc(owner) or "", re.M)
    if section is None:
        return []
    parts = re.split(r"^(\w+): ", textwrap.dedent(section[1]), flags=re.M)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _below(owner: type[Any]) -> list[tuple[str, str]]:
    """Return the texts that stand below attributes in the source."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
    if not isinstance(body, ast.ClassDef):
        return []
    found = []
    for above, text in zip(body.body, body.body[1:], strict=False):
        if not (isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)):
            continue
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name):
            found.append((above.target.id, str(text.value.value)))
    return found
