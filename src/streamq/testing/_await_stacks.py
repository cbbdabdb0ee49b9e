"""Finds the places where calls wait: their await stacks, and the calls of the driver in these.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import linecache
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamq.driver import ChunkQueue, Driver

from ._shown import shown

_CALLS = frozenset(
    {
        *("append", "append_many", "read", "describe", "delete", "streams", "commit", "release"),
        *("newest_epoch", "sweep", "aclose", "open", "examine", "provision"),
    }
)
_DEEPEST = 100
_PATH_PARTS = 2
_MOST_ENTRIES = 4


@dataclass(frozen=True, slots=True)
class WaitingPlace:
    """One frame of an await stack, or of a traceback.

    Attributes:
        function: The function's qualified name.
        path: Its file.
        line: The number of the line.
        call: If it is a call of the driver, that call with its arguments; otherwise empty.
    """

    function: str
    path: str
    line: int
    call: str = ""

    def __str__(self) -> str:
        path = "/".join(Path(self.path).parts[-_PATH_PARTS:])
        source = linecache.getline(self.path, self.line).strip()
        return f"{path}:{self.line} in {self.function}" + (f": {source}" if source else "")


def await_stack(awaitable: object) -> list[WaitingPlace]:
    """Return where a suspended coroutine, generator or task waits, the outermost call first.

    It follows the tasks that are awaited.
    """
    places: list[WaitingPlace] = []
    for _ in range(_DEEPEST):
        if isinstance(awaitable, asyncio.Task):
            awaitable = awaitable.get_coro()
        frame = next(
            (
                found
                for name in ("cr_frame", "ag_frame", "gi_frame")
                if (found := getattr(awaitable, name, None)) is not None
            ),
            None,
        )
        if frame is not None:
            places.append(place_of(frame, frame.f_lineno))
        awaited = _awaited(awaitable)
        if awaited is None:
            break
        awaitable = awaited
    return places


def place_of(frame: types.FrameType, line: int) -> WaitingPlace:
    """Return a frame as a :class:`WaitingPlace`."""
    code = frame.f_code
    name = getattr(code, "co_qualname", code.co_name)
    return WaitingPlace(name, code.co_filename, line, _call_of(frame))


def call_of(places: Iterable[WaitingPlace]) -> str:
    """Return the innermost call of a driver among places; empty if there is none."""
    return next((each.call for each in reversed(list(places)) if each.call), "")


def lines_of(stack: Sequence[WaitingPlace]) -> list[str]:
    """Return a stack as lines, from the first call of the driver on; all of it if it has none."""
    first = next((at for at, place in enumerate(stack) if place.call), 0)
    return [f"  {'at' if place is stack[-1] else 'in'} {place}" for place in stack[first:]]


def written_call(call: object) -> str:
    """Return a coroutine that has not begun as it was called: its name and its arguments."""
    frame = getattr(call, "cr_frame", None)
    if not isinstance(frame, types.FrameType):
        return shown(call)
    return f"{frame.f_code.co_name}({', '.join(_arguments(frame))})"


def _awaited(awaitable: object) -> object:
    for name in ("cr_await", "ag_await", "gi_yieldfrom"):
        found = getattr(awaitable, name, None)
        if found is not None:
            return found
    if hasattr(awaitable, "cr_frame") or hasattr(awaitable, "ag_frame"):
        return None
    # Iterators over futures, and steps of asynchronous generators, do not show what they wait for.
    for found in gc.get_referents(awaitable):
        if isinstance(found, (asyncio.Task, types.AsyncGeneratorType, types.CoroutineType)):
            return found
    return None


def _call_of(frame: types.FrameType) -> str:
    """Return the call of a driver that a frame is, as it was written."""
    if frame.f_code.co_name not in _CALLS:
        return ""
    owner = frame.f_locals.get("self", frame.f_locals.get("cls"))
    is_driver = isinstance(owner, type) and issubclass(owner, Driver)
    if not (is_driver or isinstance(owner, ChunkQueue)):
        return ""
    name = owner.__name__ if isinstance(owner, type) else type(owner).__name__
    return f"{name}.{frame.f_code.co_name}({', '.join(_arguments(frame))})"


def _arguments(frame: types.FrameType) -> Iterator[str]:
    found = inspect.getargvalues(frame)
    keywords = frame.f_code.co_varnames[
        frame.f_code.co_argcount : frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount
    ]
    for name in dict.fromkeys((*found.args, *keywords)):
        value = found.locals.get(name)
        # `queue` is the argument of the kit's helpers.
        if name not in ("self", "cls", "queue"):
            yield f"{name}={shown(value, most=_MOST_ENTRIES)}"
