"""Renders the contract as Markdown: every object, its sentences, and the checks that prove them.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from streamq import StreamqError, driver

from ._catalogue import catalogue
from ._contract import CLASSES, attributes_of, is_mandatory, methods_of, sentences
from ._harness import BackendHarness
from ._suite import DriverSuite
from ._unproved import UNPROVED
from .checks._conditions import conditions_of
from .checks._promises import promises_of

_LABELS = re.compile(r"^(Cancellation[^:\n]*|Cost|Size):", re.M)
_SELF_EVIDENT = ("defines", "describes", "allows", "says what streamq")
_SECTIONS = {"Args:": "Arguments", "Raises:": "Errors", "Returns:": "Result"}


def contract() -> str:
    """Return the reference: each class with its attributes, methods and proofs."""
    return "\n\n".join(part for name in CLASSES for part in _class(name))


def duties() -> str:
    """Return what an author has to write, and what an author may write."""
    rows = []
    for name in ("Driver", "ChunkQueue"):
        members = [*attributes_of(getattr(driver, name)), *methods_of(getattr(driver, name))]
        for mandatory in (True, False):
            for member in members:
                where = f"{name}.{member}"
                if is_mandatory(where) == mandatory and member != "home":
                    first = _first(where)
                    rows.append((f"`{where}`", "**must**" if mandatory else "may", first))
    return _table(("what", "", "in a sentence"), rows)


def errors() -> str:
    """Return the errors that a driver raises."""
    rows = []
    for name, value in vars(driver).items():
        if inspect.isclass(value) and issubclass(value, StreamqError) and not name.startswith("_"):
            repeated = "yes" if value.retryable else "no"
            rows.append((f"`{name}`", repeated, _markdown(_sentence(inspect.getdoc(value) or ""))))
    return _table(("error", "streamq tries again", "meaning"), rows)


def parts() -> str:
    """Return the parts that a driver may use."""
    rows = []
    for name, value in vars(driver).items():
        is_error = inspect.isclass(value) and issubclass(value, StreamqError)
        module = str(getattr(value, "__module__", ""))
        if module.startswith("streamq.driver_parts") and not name.startswith("_") and not is_error:
            rows.append((f"`{name}`", _markdown(_sentence(inspect.getdoc(value) or ""))))
    rows.append(("`new_entries`", _first("new_entries")))
    return _table(("part", "what it does"), rows)


def described_class(owner: type[Any]) -> str:
    """Return the attributes and methods of a class that authors derive from."""
    rows = []
    for member in (*attributes_of(owner), *methods_of(owner)):
        value = inspect.getattr_static(owner, member, None)
        text = attributes_of(owner).get(member) or inspect.getdoc(value) or ""
        has_value = member in vars(owner) or member not in owner.__annotations__
        must = getattr(value, "__isabstractmethod__", False) or not has_value
        shown = f"`{member}{'' if member in attributes_of(owner) else _arguments(value)}`"
        rows.append((shown, "**must**" if must else "", _markdown(_paragraph(text))))
    return _table(("", "", "meaning"), rows)


def harness() -> str:
    """Return the attributes of a harness, with their defaults."""
    rows = []
    for name, text in attributes_of(BackendHarness).items():
        value = getattr(BackendHarness, name, None)
        if isinstance(value, timedelta):
            value = value.total_seconds()
        rows.append(
            (f"`{name}`", "**must**" if value is None else f"{value:,.9g}", _markdown(text))
        )
    return _table(("attribute", "default", "meaning"), rows)


def _class(name: str) -> Iterator[str]:
    owner = getattr(driver, name)
    yield f"### {name}"
    text = inspect.getdoc(owner) or ""
    yield _body(re.sub(r"^Attributes:\n(?: +.*\n?|\n)+", "", text, flags=re.M))
    yield from _proofs(name)
    if attributes_of(owner):
        rows = [
            (
                f"`{each}`",
                "**must**" if is_mandatory(f"{name}.{each}") else "",
                _markdown(text.replace("Mandatory.", "").strip()),
                _checks(f"{name}.{each}"),
            )
            for each, text in attributes_of(owner).items()
        ]
        yield _table(("attribute", "", "meaning", "proved by"), rows)
    for each in methods_of(owner):
        where = f"{name}.{each}"
        value = inspect.getattr_static(owner, each)
        mark = " (must)" if is_mandatory(where) else ""
        yield f"#### {where}{mark}"
        if not isinstance(value, property):
            yield f"```python\n{_signature(each, value)}\n```"
        yield _body(inspect.getdoc(value) or "")
        yield from _proofs(where)


def _proofs(where: str) -> Iterator[str]:
    """Yield the table of sentences with their checks, and the list of those without."""
    proved: dict[str, list[str]] = {}
    for check in catalogue():
        for promise in promises_of(getattr(DriverSuite, check.name)):
            if promise.where == where:
                proved.setdefault(promise.sentence, []).append(check.name)
    if proved:
        rows = [(_markdown(each), _names(names)) for each, names in proved.items()]
        yield _table(("sentence", "proved by"), rows)
    reasons = [
        f"* {_markdown(sentence)} *Not proved: {reason}.*"
        for sentence in sentences(where)
        for (place, beginning), reason in UNPROVED.items()
        if place == where
        and sentence.startswith(beginning)
        and not reason.startswith(_SELF_EVIDENT)
    ]
    if reasons:
        yield "\n".join(reasons)


def _checks(where: str) -> str:
    """Return the checks that prove an attribute; of a capability, also how many hold it."""
    found = [
        check.name
        for check in catalogue()
        if any(each.where == where for each in promises_of(getattr(DriverSuite, check.name)))
    ]
    capability = where.removeprefix("Capabilities.")
    held = [
        check.name
        for check in catalogue()
        if where.startswith("Capabilities.")
        and capability in conditions_of(getattr(DriverSuite, check.name)).capabilities
    ]
    more = len(set(held) - set(found))
    shown = _names(found)
    return f"{shown}, and {more} that require it" if more else shown


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name.removeprefix('test_')}`" for name in dict.fromkeys(names))


def _signature(name: str, value: object) -> str:
    function = value.__func__ if isinstance(value, classmethod) else value
    assert callable(function)
    is_async = inspect.iscoroutinefunction(inspect.unwrap(function))
    prefix = "@classmethod\n" if isinstance(value, classmethod) else ""
    text = f"{'async ' if is_async else ''}def {name}{_arguments(value)}"
    if len(text) > 100:
        inside, arrow, result = text.partition("(")[2].rpartition(")")
        arguments = ",\n    ".join(re.split(r", (?=\*|\w+:)", inside))
        text = f"{text.partition('(')[0]}(\n    {arguments},\n{arrow}{result}"
    return prefix + text


def _arguments(value: object) -> str:
    function = value.__func__ if isinstance(value, classmethod) else value
    if not callable(function):
        return ""
    # Annotations are strings, in quotes; a default that is an empty string keeps its own.
    return str(inspect.signature(function)).replace("''", '""').replace("'", "")


def _body(text: str) -> str:
    """Return a docstring as Markdown: labels bold, sections as lists."""
    blocks = []
    for block in text.split("\n\n"):
        head, _, rest = block.strip("\n").partition("\n")
        if head in _SECTIONS:
            entries = re.split(r"^(\w+): ", textwrap.dedent(rest), flags=re.M)
            pairs = list(zip(entries[1::2], entries[2::2], strict=True))
            lines = [f"* `{name}`: {_markdown(what)}" for name, what in pairs]
            blocks.append(f"{_SECTIONS[head]}:\n\n" + "\n".join(lines or [_markdown(rest)]))
        elif head.startswith("* "):
            items = re.split(r"^\* ", block, flags=re.M)[1:]
            blocks.append("\n".join(f"* {_markdown(item)}" for item in items))
        else:
            blocks.append(_LABELS.sub(r"**\1:**", _markdown(block)))
    return "\n\n".join(blocks)


def _first(where: str) -> str:
    name, _, member = where.partition(".")
    owner = getattr(driver, name)
    if member and member in attributes_of(owner):
        text = attributes_of(owner)[member]
    else:
        text = inspect.getdoc(inspect.getattr_static(owner, member) if member else owner) or ""
    return _markdown(_sentence(text))


def _sentence(text: str) -> str:
    return re.split(r"(?<=\.)\s", _paragraph(text))[0]


def _paragraph(text: str) -> str:
    return " ".join(text.partition("\n\n")[0].split())


def _markdown(text: str) -> str:
    text = re.sub(
        r":\w+:`~?(?:streamq\.)?([^`]+)`|``([^`]+)``", lambda m: f"`{m[1] or m[2]}`", text
    )
    return " ".join(text.split()).replace("|", "\\|")


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head)]
    lines += [["---"] * len(lines[0])]
    lines += [list(row) for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
