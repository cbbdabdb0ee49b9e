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

    A text below the attribute, and an entry in the section "Attributes" of the class's docstring,
    are such documentation.
    """
    return {name: one_line(text) for name, text in (*_listed(owner), *_below(owner))}


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


_MANDATORY = "Mandatory."
_MADE_BY_AUTHORS = ("Capabilities", "Stored", "StreamInfo", "Finding")

CLASSES = (
    *("ChunkQueue", "Driver", "Capabilities", "Entry", "StreamAppend", "Stored", "StreamInfo"),
    *("QueueOptions", "Finding"),
)
"""The classes of the contract, in the order in which an author meets them."""


def objects() -> list[str]:
    """Return every object of the contract: the classes, and after each its members."""
    found = []
    for name in CLASSES:
        owner = getattr(driver, name)
        found.append(name)
        found += [f"{name}.{each}" for each in attributes_of(owner)]
        found += [f"{name}.{each}" for each in methods_of(owner)]
    return found


def methods_of(owner: type[Any]) -> list[str]:
    """Return the documented methods and properties of a class, in the order of the source."""
    known = attributes_of(owner)
    return [
        name
        for name, value in vars(owner).items()
        if not name.startswith("_")
        and name not in known
        and (callable(value) or isinstance(value, (classmethod, property)))
    ]


def is_mandatory(where: str) -> bool:
    """Whether an author has to supply this attribute, method or field."""
    name, _, member = where.partition(".")
    owner = getattr(driver, name)
    if name in _MADE_BY_AUTHORS and member in (fields := owner.__dataclass_fields__):
        field = fields[member]
        return field.default is dataclasses.MISSING
    value = inspect.getattr_static(owner, member, None)
    return _MANDATORY in documented(where) or getattr(value, "__isabstractmethod__", False)


def sentences(where: str) -> list[str]:
    """Return the sentences that the contract says of an object, without those of its members."""
    name, _, member = where.partition(".")
    owner = getattr(driver, name)
    if member in attributes_of(owner):
        paragraphs = [attributes_of(owner)[member]]
    else:
        text = inspect.getdoc(inspect.getattr_static(owner, member) if member else owner) or ""
        text = re.sub(r"^Attributes:\n(?: +.*\n?|\n)+", "", text, flags=re.M)
        # An entry of a section, such as an argument or an error, is a paragraph of its own.
        text = re.sub(r"^(?:Args|Raises|Returns):$", "", text, flags=re.M)
        text = re.sub(r"^(?:    \w+: |\* )", "\n", text, flags=re.M)
        paragraphs = [one_line(part) for part in text.split("\n\n")]
    return [
        sentence.strip()
        for paragraph in paragraphs
        for sentence in re.split(r"(?<=[.)])\s+(?=[A-Z`(:]|streamq )", paragraph)
        if sentence.strip() not in ("", _MANDATORY)
    ]
