"""Reads a module as a syntax tree whose nodes know their places, and walks what may be changed.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import libcst as cst
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider

Span: TypeAlias = tuple[int, int]
"""Where a text begins and ends, in characters from the beginning of the module."""

_PUNCTUATION = (
    *(cst.BaseParenthesizableWhitespace, cst.TrailingWhitespace, cst.EmptyLine, cst.Newline),
    *(cst.Comma, cst.Dot, cst.AssignEqual, cst.Colon, cst.LeftParen, cst.RightParen),
    *(cst.LeftSquareBracket, cst.RightSquareBracket, cst.BaseCompOp, cst.BaseBinaryOp),
)
_LOGS = re.compile(r"_?log(ger)?\.\w+\(")


@dataclass(frozen=True, slots=True)
class Edit:
    """One replacement in the text of a module."""

    start: int
    end: int
    text: str

    def applied_to(self, text: str, offset: int = 0) -> str:
        """Return a text, which begins at an offset of the module, after the replacement."""
        return text[: self.start - offset] + self.text + text[self.end - offset :]


class Source:
    """A module: its text, its tree, and where each node of the tree is."""

    def __init__(self, text: str) -> None:
        self.text = text
        wrapper = MetadataWrapper(cst.parse_module(text), unsafe_skip_copy=True)
        self.tree = wrapper.module
        self._ranges = wrapper.resolve(PositionProvider)
        self._parents = wrapper.resolve(ParentNodeProvider)
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def span(self, node: cst.CSTNode) -> Span:
        """Return where a node is, without the parentheses around it."""
        found = self._ranges[node]
        return (
            self._starts[found.start.line - 1] + found.start.column,
            self._starts[found.end.line - 1] + found.end.column,
        )

    def of(self, node: cst.CSTNode) -> str:
        """Return the text of a node."""
        start, end = self.span(node)
        return self.text[start:end]

    def code(self, node: cst.CSTNode) -> str:
        """Return the text of a node that may have no place, such as a comparison's operator."""
        return self.tree.code_for_node(node).strip()

    def parent(self, node: cst.CSTNode) -> cst.CSTNode | None:
        """Return the node around a node."""
        return self._parents.get(node)

    def line(self, offset: int) -> int:
        """Return the number of the line of an offset."""
        return bisect_right(self._starts, offset)

    def indentation(self, offset: int) -> str:
        """Return what precedes an offset in its line."""
        return self.text[self._starts[self.line(offset) - 1] : offset]

    def replaced(self, node: cst.CSTNode, text: str) -> Edit:
        """Return the edit that puts a text in the place of a node."""
        return Edit(*self.span(node), text)


@dataclass(frozen=True, slots=True)
class Place:
    """What surrounds a node.

    Attributes:
        source: The module.
        function: Qualified name of the innermost function or class; empty outside of all.
        is_called: Whether it is inside a function, so that not only the import executes it.
        is_alone: Whether nobody else runs until the innermost function awaits: it is a coroutine,
            or the driver has no threads.
        returns: What the function is annotated to return.
        unit: Span of the innermost simple statement, or of the head of a compound one.
    """

    source: Source
    function: str
    is_called: bool
    is_alone: bool
    returns: str
    unit: Span


def walk(
    source: Source, left_out: Collection[str] = (), *, has_threads: bool = True
) -> Iterator[tuple[cst.CSTNode, Place]]:
    """Yield every node that may be changed, with its place, outer ones first.

    Left out are imports, annotations, decorators, docstrings, lines in the log, the texts of
    messages, and whatever has a qualified name in ``left_out``.
    """
    place = Place(source, "", False, False, "", (0, 0))
    for child in source.tree.body:
        yield from _walk(child, place, frozenset(left_out), has_threads)


def _walk(
    node: cst.CSTNode, place: Place, left_out: frozenset[str], has_threads: bool
) -> Iterator[tuple[cst.CSTNode, Place]]:
    source = place.source
    if _is_fixed(node, source):
        return
    if isinstance(node, cst.FunctionDef | cst.ClassDef):
        name = f"{place.function}.{node.name.value}".lstrip(".")
        if name in left_out:
            return
        place = replace(place, function=name)
        if isinstance(node, cst.FunctionDef):
            returns = "" if node.returns is None else source.of(node.returns.annotation)
            is_alone = node.asynchronous is not None or not has_threads
            place = replace(place, is_called=True, is_alone=is_alone, returns=returns)
    place = replace(place, unit=_unit(node, source) or place.unit)
    yield node, place
    for child in _children(node):
        yield from _walk(child, place, left_out, has_threads)


def _children(node: cst.CSTNode) -> Sequence[cst.CSTNode]:
    if isinstance(node, cst.Raise):  # its class matters, its message does not
        return [node.exc.func] if isinstance(node.exc, cst.Call) else []
    if isinstance(node, cst.FormattedString):
        return ()
    return _significant(node)


@lru_cache(maxsize=100_000)
def _significant(node: cst.CSTNode) -> tuple[cst.CSTNode, ...]:
    """Return the nodes in a node, without punctuation; libcst looks for them each time."""
    return tuple(child for child in node.children if not isinstance(child, _PUNCTUATION))


def _is_fixed(node: cst.CSTNode, source: Source) -> bool:
    match node:
        case cst.Import() | cst.ImportFrom() | cst.Annotation() | cst.Decorator() | cst.Assert():
            return True
        case cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString()):
            return True
        case cst.SimpleStatementLine():
            text = source.of(node)
            return bool(_LOGS.match(text)) or text.startswith("__all__") or "TypeVar(" in text
        case cst.AnnAssign():
            return "TypeAlias" in source.of(node.annotation)
    return False


def _unit(node: cst.CSTNode, source: Source) -> Span | None:
    if isinstance(node, cst.SimpleStatementLine | cst.SimpleStatementSuite):
        return source.span(node)
    body = getattr(node, "body", None)
    if isinstance(body, cst.IndentedBlock) and not isinstance(node, cst.ClassDef):
        start = source.span(node)[0]
        end = source.span(body.body[0])[0]
        return start, start + len(source.text[start:end].rstrip())
    return None


def names_in(node: cst.CSTNode) -> set[str]:
    """Return every name in a node."""
    found = {node.value} if isinstance(node, cst.Name) else set()
    return found.union(*(names_in(child) for child in _significant(node)))


def assigned_in(node: cst.CSTNode) -> set[str]:
    """Return the names that a statement assigns."""
    found: set[str] = set()
    for target in (getattr(node, "target", None), getattr(node, "asname", None)):
        if target is not None and not isinstance(target, cst.Attribute | cst.Subscript):
            found |= names_in(target)
    return found.union(*(assigned_in(child) for child in _significant(node)))


def has(node: cst.CSTNode, *kinds: type[cst.CSTNode]) -> bool:
    """Whether a node is, or contains, one of these kinds."""
    return isinstance(node, kinds) or any(has(child, *kinds) for child in _significant(node))
