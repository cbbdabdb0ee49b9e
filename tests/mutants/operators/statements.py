"""Leaves statements out, exchanges them, and changes what surrounds them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import libcst as cst
from tests.mutants.source import Edit, Place, assigned_in, has, names_in

from .registry import operator

_WAKES = re.compile(r"\b_?(wake|notify|ring|nudge|on_commit|announce|signal|publish)\w*\(")
_FORGETS = {"pop", "popitem", "clear", "discard", "remove", "forget", "drop", "cancel", "close"}
_EMPTY = {"None", "False", "0", "0.0", "[]", "{}", "set()", "()", '""', 'b""'}
_LOCKS = re.compile(r"lock|condition|changed|working|transaction|semaphore", re.IGNORECASE)
_NEIGHBOURS = {
    "AccessDeniedError": "BackendError",
    "BackendError": "BackendUnavailableError",
    "BackendUnavailableError": "BackendError",
    "ClosedError": "BackendUnavailableError",
    "ConfigurationError": "BackendError",
    "CursorError": "BackendError",
    "FencedError": "BackendError",
    "StorageFullError": "BackendUnavailableError",
    "StreamNotFoundError": "BackendError",
    "ThrottledError": "BackendUnavailableError",
}
_ASKS = ("isinstance", "issubclass", "suppress", "exception_classes")


def _only(node: cst.CSTNode) -> cst.BaseSmallStatement | None:
    """Return the statement of a line that has only one."""
    if isinstance(node, cst.SimpleStatementLine) and len(node.body) == 1:
        return node.body[0]
    return None


def _is_call(node: cst.CSTNode | None) -> bool:
    return isinstance(node, cst.Expr) and isinstance(node.value, cst.Call | cst.Await)


def _called(node: cst.CSTNode) -> str:
    """Return the last name of the function that a statement calls."""
    value = node.value if isinstance(node, cst.Expr) else None
    value = value.expression if isinstance(value, cst.Await) else value
    function = value.func if isinstance(value, cst.Call) else None
    function = function.attr if isinstance(function, cst.Attribute) else function
    return function.value if isinstance(function, cst.Name) else ""


def _kept_values(node: cst.CSTNode | None) -> str | None:
    """Return what a statement assigns to attributes or items; ``None`` if it is another one."""
    if isinstance(node, cst.AugAssign) and isinstance(node.target, cst.Attribute | cst.Subscript):
        return "+"
    if isinstance(node, cst.Assign) and all(
        isinstance(each.target, cst.Attribute | cst.Subscript) for each in node.targets
    ):
        return cst.Module([]).code_for_node(node.value)
    return None


def _is_in_init(place: Place) -> bool:
    # What is missing after that is missing at once, for every check.
    return place.function.endswith(("__init__", "__post_init__", "__new__"))


@operator("state-kept", "a cached value is not invalidated, or something is not cleaned up")
def state_kept(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Leave out a statement that removes, empties or resets something."""
    small = _only(node)
    if small is None or _is_in_init(place):
        return
    resets = _kept_values(small) in _EMPTY
    forgets = _is_call(small) and _called(small).lstrip("_") in _FORGETS
    if isinstance(small, cst.Del) or resets or forgets:
        yield place.source.replaced(small, "pass")


@operator("assignment-left-out", "a state is not updated")
def assignment_left_out(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Leave out an assignment to an attribute or an item."""
    small = _only(node)
    if small is not None and not _is_in_init(place):
        value = _kept_values(small)
        if value is not None and value not in _EMPTY:
            yield place.source.replaced(small, "pass")


@operator("wake-up-left-out", "readers that wait are not woken")
def wake_up_left_out(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Leave out a call that wakes somebody."""
    small = _only(node)
    if small is not None and _is_call(small) and _WAKES.search(place.source.of(small)):
        yield place.source.replaced(small, "pass")


@operator("call-left-out", "a step is forgotten")
def call_left_out(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Leave out a call whose result is not used."""
    small = _only(node)
    if small is None or not _is_call(small) or place.source.of(small).startswith("super()"):
        return
    if not _WAKES.search(place.source.of(small)) and _called(small).lstrip("_") not in _FORGETS:
        yield place.source.replaced(small, "pass")


@operator("raise-left-out", "an error is swallowed")
def raise_left_out(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Go on instead of raising."""
    small = _only(node)
    if isinstance(small, cst.Raise):
        yield place.source.replaced(small, "pass")


def _statements(node: cst.CSTNode) -> Sequence[cst.BaseStatement]:
    return [
        each
        for each in (node.body if isinstance(node, cst.IndentedBlock) else ())
        if isinstance(each, cst.BaseStatement) and not _is_text(each)
    ]


def _is_text(statement: cst.BaseStatement) -> bool:
    small = _only(statement)
    return isinstance(small, cst.Expr) and isinstance(
        small.value, cst.SimpleString | cst.ConcatenatedString
    )


def _may_swap(first: cst.CSTNode, second: cst.CSTNode) -> bool:
    return not (assigned_in(first) & names_in(second) or assigned_in(second) & names_in(first))


def _swaps(node: cst.CSTNode, place: Place, *, of_awaits: bool) -> Iterator[Edit]:
    for first, second in pairwise(_statements(node) if place.is_called else ()):
        small = _only(first), _only(second)
        if any(each is None for each in small) or not _may_swap(first, second):
            continue
        if any(isinstance(each, cst.Return | cst.Raise | cst.Pass) for each in small):
            continue
        does = [has(each, cst.Call, cst.Await) for each in (first, second)]
        waits = [has(each, cst.Await) for each in (first, second)]
        acts = [_kept_values(each) is not None for each in small]
        matters = any(waits) or not place.is_alone  # in between, others can run
        if all(waits) is of_awaits and matters and (all(does) or any(acts)):
            start, middle = place.source.span(first)
            other, end = place.source.span(second)
            text = place.source.text
            yield Edit(start, end, text[other:end] + text[middle:other] + text[start:middle])


@operator("awaits-swapped", "two steps that wait come in the wrong order")
def awaits_swapped(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Exchange two neighbours that both await."""
    yield from _swaps(node, place, of_awaits=True)


@operator("statements-swapped", "two steps come in the wrong order")
def statements_swapped(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Exchange two neighbours of which one awaits, or both call something."""
    if not _is_in_init(place):
        yield from _swaps(node, place, of_awaits=False)


@operator("wake-up-early", "readers are woken before there is something to read")
def wake_up_early(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Exchange what wakes somebody and the step before it."""
    source, there = place.source, _statements(node)
    for step, wake in pairwise(there):
        text = source.of(wake)
        wakes = isinstance(wake, cst.With | cst.For) or _is_call(_only(wake))
        acts = has(step, cst.Call, cst.Await) and not isinstance(step, cst.FunctionDef)
        matters = has(step, cst.Await) or not place.is_alone  # in between, others can run
        if wakes and acts and matters and _WAKES.search(text) and _may_swap(step, wake):
            start, end = source.span(step)
            moved = f"{text.rstrip()}\n{source.indentation(start)}{source.text[start:end].rstrip()}"
            yield Edit(start, source.span(wake)[1], moved)


def _contexts(node: cst.CSTNode, place: Place, *, locks: bool) -> Iterator[Edit]:
    if isinstance(node, cst.With):
        for item in node.items:
            text = place.source.of(item.item)
            if bool(_LOCKS.search(text)) is locks:
                yield place.source.replaced(
                    item.item, f'__import__("contextlib").nullcontext({text})'
                )


@operator("lock-left-out", "a lock or a transaction is missing")
def lock_left_out(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Do without a lock."""
    yield from _contexts(node, place, locks=True)


@operator("context-left-out", "errors are not translated or suppressed, a time-out is missing")
def context_left_out(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Do without another context manager."""
    yield from _contexts(node, place, locks=False)


@operator("handler-dropped", "an error is not expected")
def handler_dropped(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Handle no error, or one class less."""
    if not isinstance(node, cst.ExceptHandler) or node.type is None:
        return
    yield place.source.replaced(node.type, "()")
    if isinstance(node.type, cst.Tuple) and len(node.type.elements) > 1:
        classes = [place.source.of(each.value) for each in node.type.elements]
        for at in range(len(classes)):
            kept = ", ".join(classes[:at] + classes[at + 1 :])
            yield place.source.replaced(node.type, f"{kept},")


@operator("error-class", "an error is taken for its neighbour")
def error_class(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Name another class of error."""
    name = node.attr.value if isinstance(node, cst.Attribute) else None
    name = node.value if isinstance(node, cst.Name) else name
    if name not in _NEIGHBOURS:
        return
    around = place.source.parent(node)
    if isinstance(around, cst.Attribute):
        return  # its parent is looked at
    while around is not None and not isinstance(around, cst.BaseStatement):
        if isinstance(around, cst.Call) and place.source.of(around.func).endswith(_ASKS):
            return
        around = place.source.parent(around)
    if isinstance(around, cst.ClassDef | cst.Try):
        return
    other = _NEIGHBOURS[name]
    if isinstance(node, cst.Attribute):
        yield place.source.replaced(node.attr, other)
    else:
        yield place.source.replaced(node, f'__import__("streamq").{other}')
