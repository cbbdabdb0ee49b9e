"""Changes constants, bounds, arguments and results."""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst
from tests.mutants.source import Edit, Place, has

from .registry import operator

# Larger ones are tunings: nobody promises that 10 are not 11.
_LARGEST_CONSTANT = 3
_TEXTS = {"backend", "stream", "name", "daemon", "strict", "description", "detail", "remedy"}
# A driver may leave these unknown: their places in StreamInfo, and their names.
_OPTIONAL = (2, 3)
_OPTIONAL_NAMES = {"records", "size_bytes"}
_ARITHMETIC = {
    "+": "-",
    "-": "+",
    "*": "//",
    "/": "*",
    "//": "*",
    "%": "+",
    "<<": ">>",
    "+=": "-=",
    "-=": "+=",
    "|=": "=",
    "&=": "=",
}
_DEFAULTS = (
    (r"(list|Sequence|tuple)\[", "[]"),
    (r"dict\[", "{}"),
    (r"set\[", "set()"),
    (r"bool$", "False"),
    (r"int$", "0"),
    (r"float$", "0.0"),
    (r"str$", '""'),
    (r"bytes$", 'b""'),
)


def _is_capability(node: cst.CSTNode, place: Place) -> bool:
    around = place.source.parent(node)
    call = place.source.parent(around) if isinstance(around, cst.Arg) else None
    return isinstance(call, cst.Call) and place.source.of(call.func).endswith("Capabilities")


@operator("constant", "a constant is off by one, or the opposite")
def constant(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Change a small number by one, or a truth value."""
    if isinstance(place.source.parent(node), cst.Return | cst.UnaryOperation):
        return  # other operators change results; -1 is one constant
    if isinstance(node, cst.Integer) and int(node.value, 0) <= _LARGEST_CONSTANT:
        number = int(node.value, 0)
        yield place.source.replaced(node, str(number + 1))
        if number > 0:
            yield place.source.replaced(node, str(number - 1))
    elif isinstance(node, cst.Float) and node.evaluated_value == 0:
        yield place.source.replaced(node, "1.0")
    elif isinstance(node, cst.Name) and node.value in ("True", "False"):
        # A driver may declare less than it can do. A loop's own True has its own operator.
        is_condition = isinstance(place.source.parent(node), cst.While)
        if not is_condition and not (node.value == "True" and _is_capability(node, place)):
            yield place.source.replaced(node, "False" if node.value == "True" else "True")
    elif isinstance(node, cst.UnaryOperation) and isinstance(node.expression, cst.Integer):
        yield place.source.replaced(node, "0")


@operator("slice-bound", "a range of items has a wrong end")
def slice_bound(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Drop a bound of a slice, or move it by one."""
    if isinstance(node, cst.Slice):
        for bound in (node.lower, node.upper):
            if bound is not None:
                text = place.source.of(bound)
                yield place.source.replaced(bound, "")
                yield place.source.replaced(bound, f"({text}) + 1")
                yield place.source.replaced(bound, f"({text}) - 1")


def _arguments(node: cst.Call, place: Place) -> list[str]:
    return [place.source.of(each).strip().rstrip(",").rstrip() for each in node.args]


def _with_arguments(node: cst.Call, place: Place, arguments: list[str]) -> Edit:
    start = place.source.span(node.args[0])[0]
    end = place.source.span(node.args[-1])[1]
    return Edit(start, end, ", ".join(arguments))


@operator("limit-dropped", "a bound is missing, or the wrong one is taken")
def limit_dropped(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Drop an argument of ``min`` and ``max``, or exchange the two."""
    if not isinstance(node, cst.Call) or place.source.of(node.func) not in ("min", "max"):
        return
    other = "max" if place.source.of(node.func) == "min" else "min"
    yield place.source.replaced(node.func, other)
    arguments = _arguments(node, place)
    if len(arguments) > 1 and not any("=" in each for each in arguments):
        for at in range(len(arguments)):
            kept = ", ".join(arguments[:at] + arguments[at + 1 :])
            name = "" if len(arguments) == 2 else place.source.of(node.func)
            yield place.source.replaced(node, f"{name}({kept})")


@operator("argument-dropped", "an option is not passed on")
def argument_dropped(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Leave out a named argument."""
    if not isinstance(node, cst.Call) or place.source.of(node.func).endswith("Capabilities"):
        return
    arguments = _arguments(node, place)
    for at, argument in enumerate(node.args):
        if argument.keyword is not None and argument.keyword.value not in (
            _TEXTS | _OPTIONAL_NAMES
        ):
            yield _with_arguments(node, place, arguments[:at] + arguments[at + 1 :])


@operator("argument-empty", "something known is not reported")
def argument_empty(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Describe a stream without its newest records, or without its expiry."""
    if isinstance(node, cst.Call) and place.source.of(node.func).endswith("StreamInfo"):
        arguments = _arguments(node, place)
        for at, argument in enumerate(node.args[1:], start=1):
            is_promised = argument.keyword is None and at not in _OPTIONAL
            if is_promised and arguments[at] not in ("None", "()"):
                empty = "()" if at == 1 else "None"
                changed = [*arguments[:at], empty, *arguments[at + 1 :]]
                yield _with_arguments(node, place, changed)


@operator("arithmetic", "a sum goes the wrong way")
def arithmetic(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Exchange an arithmetic operator for its opposite."""
    source = place.source
    if isinstance(node, cst.BinaryOperation):
        token = source.code(node.operator)
        text = has(node, cst.SimpleString, cst.FormattedString, cst.ConcatenatedString)
        if token in _ARITHMETIC and not text:
            start, end = source.span(node.left)[1], source.span(node.right)[0]
            between = source.text[start:end].replace(token, _ARITHMETIC[token], 1)
            yield Edit(start, end, between)
    elif isinstance(node, cst.AugAssign):
        token = source.code(node.operator)
        if token in _ARITHMETIC:
            start, end = source.span(node.target)[1], source.span(node.value)[0]
            between = source.text[start:end].replace(token, _ARITHMETIC[token], 1)
            yield Edit(start, end, between)


@operator("result-dropped", "a result is not returned")
def result_dropped(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Return nothing, or the empty value of the type that is annotated."""
    if isinstance(node, cst.Return) and node.value is not None:
        text = place.source.of(node.value)
        empty = "None"
        if "None" not in place.returns:
            empty = next((e for kind, e in _DEFAULTS if re.search(kind, place.returns)), "None")
        if text == empty == "False":
            empty = "True"
        if text not in (empty, "[]", "()"):
            yield place.source.replaced(node.value, empty)
    elif isinstance(node, cst.Yield) and node.value is not None:
        yield place.source.replaced(node, f"({place.source.of(node)}) if False else None")


@operator("order-lost", "things come in the wrong order")
def order_lost(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Do without ``sorted`` and ``reversed``."""
    if isinstance(node, cst.Call) and place.source.of(node.func) in ("sorted", "reversed"):
        yield place.source.replaced(node.func, "list")


@operator("default-lost", "the wrong one of a value and its default is taken")
def default_lost(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Take always one branch's value of a conditional expression."""
    if isinstance(node, cst.IfExp) and not has(node.test, cst.NamedExpr):
        for branch in (node.body, node.orelse):
            yield place.source.replaced(node, f"({place.source.of(branch)})")
