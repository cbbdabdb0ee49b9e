"""Lets clients see errors of A2A only: what else an operation raises goes to the replica's log.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from a2a.utils.errors import A2AError, InternalError

from streamq._errors import StreamqError

from ._resources import server_logger

F = TypeVar("F", bound=Callable[..., Any])

_BROKEN = "The agent failed to answer."
_UNAVAILABLE = "The agent cannot be reached at the moment; try again."

_logger = server_logger()


def guarded(method: F) -> F:
    """Turn what an operation raises, unless it is an error of A2A, into one with a fixed text."""

    @functools.wraps(method)
    async def run(*args: Any, **kwargs: Any) -> Any:
        with disclosing_nothing():
            return await method(*args, **kwargs)

    return run  # type: ignore[return-value]


@contextmanager
def disclosing_nothing() -> Iterator[None]:
    """Turn errors that are not of A2A into one with a fixed text; the log has the rest."""
    try:
        yield
    except A2AError:
        raise
    except StreamqError as exc:
        _logger.warning("a request failed: %s: %s", type(exc).__name__, exc)
        raise InternalError(_UNAVAILABLE) from exc
    except Exception as exc:
        _logger.exception("a request failed")
        raise InternalError(_BROKEN) from exc
