"""The operators make the small changes that their names promise, and no others."""

from __future__ import annotations

import textwrap

import pytest

from .operators import OPERATORS
from .source import Source, walk

_METHOD = """\
class Queue:
    async def read(self, stream, *, ttl=None) -> list[bytes]:
{body}
"""

# For each operator: a statement of a driver, and all that it becomes.
_EXAMPLES: dict[str, tuple[str, list[str]]] = {
    "boundary": ("return size < limit", ["return size <= limit"]),
    "comparison-flipped": ("return a is not b", ["return a is b"]),
    "expiry-ignored": (
        "if head.expires_at > now:\n    go()",
        ["if True:\n    go()", "if False:\n    go()"],
    ),
    "bound-dropped": ("return 0 < x <= top", ["return 0 < x", "return x <= top"]),
    "and-or": ("return (a and b)", ["return (a or b)"]),
    "condition-negated": (
        "if found and fits:\n    go()",
        ["if (not (found and fits)):\n    go()"],
    ),
    "condition-ignored": (
        "if (x := f()) is None:\n    go()",
        ["if (((x := f()) is None) or True):\n    go()"],
    ),
    "branch-dropped": ("if closed:\n    stop()", ["if False:\n    stop()"]),
    "loop-once": (
        "while more:\n    fetch()",
        ["for _once in ([0] if (more) else []):\n    fetch()"],
    ),
    "break-continue": (
        "for x in y:\n    if x:\n        break",
        ["for x in y:\n    if x:\n        continue"],
    ),
    "state-kept": ("self._newest.pop(stream, None)", ["pass"]),
    "assignment-left-out": ("self._newest[stream] = entry", ["pass"]),
    "wake-up-left-out": ("self.changed.notify_all()", ["pass"]),
    "call-left-out": ("self._check_open()", ["pass"]),
    "raise-left-out": ("raise FencedError('stop')", ["pass"]),
    "awaits-swapped": (
        "await self.fence()\nawait self.store()",
        ["await self.store()\nawait self.fence()"],
    ),
    "statements-swapped": ("store()\nawait self.ready()", ["await self.ready()\nstore()"]),
    "wake-up-early": (
        "check(a)\nawait store(a)\nfor waiter in self.waiters:\n    waiter.wake()",
        ["check(a)\nfor waiter in self.waiters:\n    waiter.wake()\nawait store(a)"],
    ),
    "lock-left-out": (
        "async with self._lock:\n    store()",
        ['async with __import__("contextlib").nullcontext(self._lock):\n    store()'],
    ),
    "context-left-out": (
        "with suppress(KeyError):\n    store()",
        ['with __import__("contextlib").nullcontext(suppress(KeyError)):\n    store()'],
    ),
    "handler-dropped": (
        "try:\n    go()\nexcept (A, B):\n    stop()",
        [
            "try:\n    go()\nexcept (()):\n    stop()",
            "try:\n    go()\nexcept (B,):\n    stop()",
            "try:\n    go()\nexcept (A,):\n    stop()",
        ],
    ),
    "error-class": ("raise sd.FencedError('stop')", ["raise sd.BackendError('stop')"]),
    "constant": ("count = f(0)", ["count = f(1)"]),
    "slice-bound": (
        "return there[-last:]",
        ["return there[:]", "return there[(-last) + 1:]", "return there[(-last) - 1:]"],
    ),
    "limit-dropped": (
        "n = min(asked, page)",
        ["n = max(asked, page)", "n = (page)", "n = (asked)"],
    ),
    "argument-dropped": ("describe(stream, last=1)", ["describe(stream)"]),
    "argument-empty": (
        "return StreamInfo(stream, last, records)",
        ["return StreamInfo(stream, (), records)"],
    ),
    "arithmetic": ("size += len(data)", ["size -= len(data)"]),
    "result-dropped": ("return found", ["return []"]),
    "order-lost": ("names = sorted(there)", ["names = list(there)"]),
    "default-lost": ("x = a if b else c", ["x = (a)", "x = (c)"]),
    "query-boundary": (
        'q("SELECT a FROM t WHERE e > ?")',
        ['q("SELECT a FROM t WHERE e >= ?")'],
    ),
    "query-term": (
        'q("SELECT a FROM t WHERE n = ? AND expires > ? LIMIT 1")',
        [
            'q("SELECT a FROM t WHERE ? IS NOT NULL AND expires > ? LIMIT 1")',
            'q("SELECT a FROM t WHERE n = ? AND ? IS NOT NULL LIMIT 1")',
        ],
    ),
    "query-order": (
        'q("SELECT a FROM t ORDER BY a")',
        ['q("SELECT a FROM t ORDER BY a DESC")'],
    ),
    "query-limit": (
        'q("SELECT a FROM t LIMIT ?")',
        [
            'q("SELECT a FROM t LIMIT ? + 1")',
            'q("SELECT a FROM t LIMIT min(?, 1)")',
            'q("SELECT a FROM t LIMIT -1 - 0 * ?")',
        ],
    ),
    "query-value": ('q("UPDATE t SET n = n + ?")', ['q("UPDATE t SET n = ?")']),
    "command-word": (
        'call(("XADD", key, "NOMKSTREAM", "*"))',
        ['call(("XADD", key, "*"))'],
    ),
}


def _source(body: str) -> str:
    return _METHOD.format(body=textwrap.indent(body, " " * 8))


def _changed(operator: str, source: str) -> list[str]:
    return [
        edit.applied_to(source)
        for node, place in walk(Source(source))
        for edit in OPERATORS[operator].find(node, place)
    ]


def test_every_operator_has_an_example() -> None:
    """An operator that changes nothing would be drawn as one that the kit always notices."""
    assert sorted(_EXAMPLES) == sorted(OPERATORS)


@pytest.mark.parametrize("operator", _EXAMPLES)
def test_operator_makes_its_changes(operator: str) -> None:
    """The figures mean something only if each change is the one that its name says."""
    before, after = _EXAMPLES[operator]
    assert _changed(operator, _source(before)) == [_source(each) for each in after]


@pytest.mark.parametrize(
    "text",
    [
        '"""Wait for 1 or 2 readers."""',
        "_log.warning('failed %d times', 1 + 1)",
        "raise FencedError(f'epoch {1 + 1} has taken over')",
        "assert 0 < 1",
        "from .driver import FencedError",
    ],
)
def test_what_no_caller_relies_on_is_not_changed(text: str) -> None:
    """A survivor in a message says nothing about the kit."""
    operators = set(OPERATORS) - {"raise-left-out", "error-class"}
    assert [name for name in operators if _changed(name, _source(text))] == []


def test_a_driver_may_declare_less_than_it_can_do() -> None:
    """It is no fault, so no check could find it."""
    declared = "c = Capabilities(replay=True, durable=False)"
    assert _changed("constant", declared) == ["c = Capabilities(replay=True, durable=True)"]


def test_steps_between_which_nobody_runs_are_not_exchanged() -> None:
    """Until a coroutine awaits, no other task can see which of two steps came first."""
    operators = ("statements-swapped", "wake-up-early")
    steps = _source("self.store(a)\nself.wake()")
    assert [name for name in operators if _changed(name, steps)] == []


def test_steps_of_a_driver_without_threads_are_not_exchanged() -> None:
    """In a function that is no coroutine nobody else runs either, unless there are threads."""
    source = Source("class Queue:\n    def wake(self) -> None:\n        a()\n        b()\n")
    find = OPERATORS["statements-swapped"].find
    found = {
        has_threads: [
            edit for each in walk(source, has_threads=has_threads) for edit in find(*each)
        ]
        for has_threads in (True, False)
    }
    assert [len(found[True]), len(found[False])] == [1, 0]


def test_a_step_is_not_moved_before_what_it_needs() -> None:
    """A name without a value fails at once, whatever the kit looks at."""
    assert _changed("awaits-swapped", _source("x = await a()\nawait b(x)")) == []
