"""Changes what a string tells a server: SQL, Lua, and the words of a command."""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst
from tests.mutants.source import Edit, Place

from .registry import operator

_LANGUAGE = re.compile(
    r"\b(SELECT|INSERT (OR \w+ )?INTO|UPDATE|DELETE FROM|CREATE (UNIQUE )?(TABLE|INDEX))\b"
    r"|\b(redis|server)\.call\b"
)
_COMPARISON = re.compile(r"(?<![<>=!-])(<=|>=|<|>)(?![>=])")
_BOUNDARY = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_TERM = re.compile(
    r"\b(?:AND|WHERE)\s+(?P<term>.+?)(?=\s+(?:AND|ORDER|GROUP|LIMIT)\b|\)*\s*[\"']?$)", re.DOTALL
)
_ORDER = re.compile(r"\bORDER BY\s+(?P<columns>[\w, .]+?)(?=\s+LIMIT\b|\)*\s*[\"']?$)")
_LIMIT = re.compile(r"\bLIMIT\s+(?P<count>\?)")
_SUM = re.compile(r"=\s*(?P<old>\w+ [+-] )\?")
_EXTREME = re.compile(r"\b(max|min)(?=\()")
_FLAGS = {"NOMKSTREAM", "NX", "XX", "GT", "LT"}
_OPTIONS = {"COUNT", "MATCH", "TYPE", "MINID", "MAXLEN"}


def _pieces(node: cst.CSTNode, place: Place) -> Iterator[tuple[int, str]]:
    """Yield the texts of a string in a server's language, with their offsets."""
    source = place.source
    if not isinstance(node, cst.SimpleString | cst.FormattedString):
        return
    whole: cst.CSTNode = node
    while isinstance(around := source.parent(whole), cst.ConcatenatedString):
        whole = around
    if not _LANGUAGE.search(source.of(whole)):
        return
    if isinstance(node, cst.SimpleString):
        yield source.span(node)[0], source.of(node)
        return
    for part in node.parts:
        if isinstance(part, cst.FormattedStringText):
            yield source.span(part)[0], source.of(part)


@operator("query-boundary", "a comparison in a query is off by one at its boundary")
def query_boundary(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Exchange ``<`` and ``<=``, ``>`` and ``>=``."""
    for offset, text in _pieces(node, place):
        for found in _COMPARISON.finditer(text):
            yield Edit(offset + found.start(), offset + found.end(), _BOUNDARY[found[0]])


@operator("query-term", "a query lacks a condition, such as that of the expiry")
def query_term(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Replace a term of a query's condition by one that is always true."""
    for offset, text in _pieces(node, place):
        for found in _TERM.finditer(text):
            marks = found["term"].count("?")
            always = " AND ".join(["? IS NOT NULL"] * marks) or "1"
            yield Edit(offset + found.start("term"), offset + found.end("term"), always)


@operator("query-order", "a query returns its rows in another order")
def query_order(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Turn the order around, or let the first column alone decide."""
    for offset, text in _pieces(node, place):
        for found in _ORDER.finditer(text):
            start, end = offset + found.start("columns"), offset + found.end("columns")
            columns = [each.strip() for each in found["columns"].split(",")]
            turned = [
                c.removesuffix(" DESC") if c.endswith(" DESC") else f"{c} DESC" for c in columns
            ]
            yield Edit(start, end, ", ".join(turned))
            if len(columns) > 1:
                yield Edit(start, end, columns[0])
                yield Edit(start, end, columns[-1])


@operator("query-limit", "a query returns more or fewer rows than it was asked for")
def query_limit(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Change the limit of a query."""
    for offset, text in _pieces(node, place):
        for found in _LIMIT.finditer(text):
            start, end = offset + found.start("count"), offset + found.end("count")
            for changed in ("? + 1", "min(?, 1)", "-1 - 0 * ?"):
                yield Edit(start, end, changed)


@operator("query-value", "a query computes a wrong value")
def query_value(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Replace a sum by its new part, and exchange ``max`` and ``min``."""
    for offset, text in _pieces(node, place):
        for found in _SUM.finditer(text):
            yield Edit(offset + found.start("old"), offset + found.end("old"), "")
        for found in _EXTREME.finditer(text):
            other = "min" if found[0] == "max" else "max"
            yield Edit(offset + found.start(), offset + found.end(), other)


@operator("command-word", "a command to the server lacks an option")
def command_word(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Drop a flag or an option of a command, or let a range include its end."""
    source = place.source
    if not isinstance(node, cst.Tuple) or len(node.elements) < 2:
        return
    words = [source.of(each.value) for each in node.elements]
    if not re.fullmatch(r'"[A-Z]+"', words[0]):
        return
    start, end = source.span(node.elements[0].value)[0], source.span(node.elements[-1].value)[1]
    for at, word in enumerate(words):
        plain = word.strip('"')
        kept = None
        if plain in _FLAGS:
            kept = words[:at] + words[at + 1 :]
        elif plain in _OPTIONS:
            kept = words[:at] + words[at + 2 :]
        elif word.startswith('f"('):
            kept = [*words[:at], word.replace("(", "", 1), *words[at + 1 :]]
        if kept is not None:
            yield Edit(start, end, ", ".join(kept))
