"""Hands the writers of an attempt to the function that it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from streamq.temporal._failure import no_plugin

_writers: ContextVar[dict[str, Any] | None] = ContextVar("streamq_writers", default=None)


@contextmanager
def giving_writers(writers: dict[str, Any]) -> Iterator[None]:
    """Give writers to the function that runs in this block, or in a thread started from it."""
    token = _writers.set(writers)
    try:
        yield
    finally:
        _writers.reset(token)


def given_writers() -> dict[str, Any]:
    """Return the writers of the running activity, by parameter name.

    Raises:
        ApplicationError: The worker runs without the plugin, or there is no worker; not retryable.
    """
    writers = _writers.get()
    if writers is None:
        raise no_plugin(
            "; a unit test runs the activity with streamq.testing.record, or passes stream="
        )
    return writers
