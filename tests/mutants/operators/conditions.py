"""Changes comparisons, conditions and loops."""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst
from tests.mutants.source import Edit, Place, has

from .registry import operator

_BOUNDARY = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
_FLIPPED = {
    "==": "!=",
    "!=": "==",
    "<": ">=",
    ">": "<=",
    "<=": ">",
    ">=": "<",
    "is": "is not",
    "is not": "is",
    "in": "not in",
    "not in": "in",
}
_LIFETIME = re.compile(r"expir|ttl\b|due\b|visible|deadline|until|give_up|lost|life", re.IGNORECASE)


def _tokens(node: cst.Comparison, place: Place) -> Iterator[tuple[str, int, int]]:
    """Yield each operator of a comparison, with the span between its operands."""
    source, left = place.source, node.left
    for target in node.comparisons:
        yield (
            source.code(target.operator),
            source.span(left)[1],
            source.span(target.comparator)[0],
        )
        left = target.comparator


def _changed(node: cst.Comparison, place: Place, changes: dict[str, str]) -> Iterator[Edit]:
    for token, start, end in _tokens(node, place):
        if token in changes:
            between = place.source.text[start:end]
            yield Edit(start, end, between.replace(token, changes[token], 1))


@operator("boundary", "a comparison is off by one at its boundary")
def boundary(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Exchange ``<`` and ``<=``, ``>`` and ``>=``."""
    if isinstance(node, cst.Comparison):
        yield from _changed(node, place, _BOUNDARY)


@operator("comparison-flipped", "a comparison says the opposite")
def comparison_flipped(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Negate a comparison by its operator."""
    if isinstance(node, cst.Comparison) and len(node.comparisons) == 1:
        yield from _changed(node, place, _FLIPPED)


@operator("expiry-ignored", "a time is looked at on one path only")
def expiry_ignored(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Replace a comparison of times by either outcome."""
    if isinstance(node, cst.Comparison) and _LIFETIME.search(text := place.source.of(node)):
        for outcome in ("True", "False"):
            yield place.source.replaced(node, _with_effects(node, text, outcome))


@operator("bound-dropped", "one of two conditions is missing")
def bound_dropped(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Drop a term of ``and`` and ``or``, or one end of a range."""
    source = place.source
    if isinstance(node, cst.BooleanOperation):
        for kept, dropped in ((node.left, node.right), (node.right, node.left)):
            if not has(dropped, cst.NamedExpr):
                yield source.replaced(node, f"({source.of(kept)})")
    elif isinstance(node, cst.Comparison) and len(node.comparisons) == 2:
        middle = node.comparisons[0].comparator
        yield Edit(source.span(middle)[1], source.span(node)[1], "")
        yield Edit(source.span(node)[0], source.span(middle)[0], "")


@operator("and-or", "conditions are joined by the wrong word")
def and_or(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Exchange ``and`` and ``or``."""
    if isinstance(node, cst.BooleanOperation):
        start, end = place.source.span(node.left)[1], place.source.span(node.right)[0]
        between = place.source.text[start:end]
        word = "and" if isinstance(node.operator, cst.And) else "or"
        yield Edit(start, end, between.replace(word, "or" if word == "and" else "and", 1))


def _test(node: cst.CSTNode) -> cst.BaseExpression | None:
    """Return the condition of a node that has one."""
    return node.test if isinstance(node, cst.If | cst.IfExp | cst.CompIf | cst.While) else None


def _with_effects(test: cst.BaseExpression, text: str, outcome: str) -> str:
    if not has(test, cst.NamedExpr, cst.Await):
        return outcome
    return f"(({text}) or True)" if outcome == "True" else f"(({text}) and False)"


@operator("condition-negated", "a condition says the opposite")
def condition_negated(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Negate a condition that is no comparison."""
    test = _test(node)
    if test is None or place.source.of(test) == "True":
        return
    if isinstance(test, cst.UnaryOperation) and isinstance(test.operator, cst.Not):
        yield place.source.replaced(test, f"({place.source.of(test.expression)})")
    elif not (isinstance(test, cst.Comparison) and len(test.comparisons) == 1):
        yield place.source.replaced(test, f"(not ({place.source.of(test)}))")


@operator("condition-ignored", "something is done always instead of sometimes")
def condition_ignored(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Take the first branch always."""
    test = _test(node)
    if test is not None and not isinstance(node, cst.While):
        text = place.source.of(test)
        yield place.source.replaced(test, _with_effects(test, text, "True"))


@operator("branch-dropped", "a special case is forgotten")
def branch_dropped(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Never take the first branch."""
    test = _test(node)
    if test is not None and (text := place.source.of(test)) != "True":
        yield place.source.replaced(test, _with_effects(test, text, "False"))


@operator("loop-once", "the first page, or the first try, is taken for all")
def loop_once(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """End a loop after its first turn."""
    source = place.source
    if isinstance(node, cst.While):
        text = source.of(node.test)
        start, end = place.unit
        turns = "[0]" if text == "True" else f"([0] if ({text}) else [])"
        yield Edit(start, end, f"for _once in {turns}:")
    elif (isinstance(node, cst.For) and node.asynchronous is None) or (
        isinstance(node, cst.CompFor) and node.asynchronous is None
    ):
        text = source.of(node.iter)
        yield source.replaced(node.iter, f'__import__("itertools").islice(({text}), 1)')


@operator("break-continue", "a loop ends too early or too late")
def break_continue(node: cst.CSTNode, place: Place) -> Iterator[Edit]:
    """Exchange ``break`` and ``continue``."""
    if isinstance(node, cst.Break | cst.Continue):
        yield place.source.replaced(node, "continue" if isinstance(node, cst.Break) else "break")
