"""Explains the failure of a check: the sentence of the contract, the likely cause, the next step.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from streamq import CursorError, FencedError, StreamNotFoundError, StreamqError, driver

from ._await_stacks import WaitingPlace, call_of, place_of
from ._broken_promise import BrokenPromiseError
from ._contract import attributes_of
from ._shown import shown
from ._virtual_time import DeadlockError
from .checks._promises import Promise

TITLE = "what the contract says"
BEFORE = "before the check"

_WIDTH = 96
_LABEL_WIDTH = 14
_PAGE = "docs/contract.md"
_ABOUT_STATE = (FencedError, StreamNotFoundError, CursorError)


def explain_failure(
    error: BaseException, promises: Sequence[Promise], why: str, node: str
) -> str | None:
    """Return the section that a failed check adds to its report; ``None`` if it needs none.

    Args:
        error: What the check raised.
        promises: The sentences of the contract that the check proves.
        why: Why anyone cares about it.
        node: pytest's id of the check.
    """
    if not promises or not isinstance(error, Exception):
        return None
    lines: list[str] = []
    for promise in promises:
        lines += _part("The contract", f'"{_plain(promise.sentence)}" ({promise.where})')
    lines += _seen(error)
    known = [promise.cause for promise in promises]
    # A wrong belief about a stream looks like an error about its state: the check knows the cause.
    first = known if isinstance(error, _ABOUT_STATE) else []
    causes = [*first, _cause(error), *known, _cause_in_core(error)]
    if cause := next(filter(None, causes), ""):
        lines += _part("Likely cause", cause)
    lines += _part("Why it matters", why)
    lines += _part("Read", f"{_PAGE}, or help(streamq.driver.{_helped(promises[0].where)})")
    lines.append(f'{"Run it again":<{_LABEL_WIDTH}}  pytest "{node}"')  # not cut, to be copied
    return "\n".join(lines)


def explain_start(error: BaseException, label: str) -> str | None:
    """Return the section of a check that could not begin; ``None`` if it needs none.

    Args:
        error: What the fixtures raised.
        label: The harness's label of the backend.
    """
    if ".open(" not in call_of(_places(error)) or not isinstance(error, Exception):
        return None
    return "\n".join(
        [
            *_part("Not begun", f"the queue of the check could not be opened on {label}"),
            *_part("Expected", "it returns a queue"),
            *_part("Seen", shown(error)),
            *_part(
                "Likely cause",
                "settings() of the harness do not lead to the server that it started, or open() "
                "itself fails; every check needs a queue, so mend this one first",
            ),
        ]
    )


def _seen(error: Exception) -> Iterator[str]:
    """Yield what was expected and seen, where the message of the error does not say it."""
    if isinstance(error, (AssertionError, DeadlockError)):
        return
    places = _places(error)
    call = call_of(places)
    yield from _part("Expected", f"{call or 'the check'} raises nothing")
    yield from _part("Seen", shown(error))
    if places and call:
        yield f"{'Where':<{_LABEL_WIDTH}}  {places[-1]}"


def _cause(error: Exception) -> str:
    if isinstance(error, BrokenPromiseError):
        return error.cause
    if isinstance(error, DeadlockError):
        return (
            "a call waits for an event that no task will set: a wake-up that is sent before the "
            "record is stored, lost between looking and waiting, or sent to another stream"
        )
    if isinstance(error, AssertionError) or not call_of(_places(error)):
        return ""
    if isinstance(error, StreamqError):
        return (
            f"the driver raises {type(error).__name__} although the backend works: the request is "
            "wrong, its answer is not understood, or another error is mapped to this one"
        )
    if isinstance(error, NotImplementedError):
        return "the call is not written yet; what it raises says what to write, and where"
    return (
        f"{type(error).__name__} is no error of streamq: a bug in the driver, or an error of the "
        "client that is not translated; an ErrorTable of streamq.driver does that for every call"
    )


def _cause_in_core(error: Exception) -> str:
    """Return the likely cause of an error that streamq itself raises, between two calls."""
    if not isinstance(error, StreamqError) or call_of(_places(error)):
        return ""
    return (
        "streamq's core raises it because of what the driver returned before: it relies on the "
        "sentence above"
    )


def _places(error: BaseException) -> list[WaitingPlace]:
    """Return the frames of an error's traceback, the outermost first."""
    places = []
    traceback = error.__traceback__
    while traceback is not None:
        places.append(place_of(traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return places


def _helped(where: str) -> str:
    """Return the object whose help has the sentence: of an attribute, its class."""
    owner, _, member = where.partition(".")
    return owner if member in attributes_of(getattr(driver, owner)) else where


def _plain(text: str) -> str:
    """Return a docstring's text without its markup."""
    return re.sub(r":\w+:`~?(?:streamq\.)?([^`]+)`|``([^`]+)``", lambda m: m[1] or m[2], text)


def _part(label: str, text: str) -> list[str]:
    indent = " " * (_LABEL_WIDTH + 2)
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"{label:<{_LABEL_WIDTH}}  ",
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
