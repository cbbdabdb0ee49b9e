"""Chooses, for a block of workflow code, which stream the activities that it starts write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from streamq.temporal._names import check_topic

_topic: ContextVar[str | None] = ContextVar("streamq_topic", default=None)


@contextmanager
def stream_topic(topic: str) -> Iterator[None]:
    """Choose the topic of the streaming activities that a workflow starts inside this block.

    It wins over the topic given to ``@streaming_activity``. Only for workflow code, on workers that
    have the plugin. The activity must be *started* inside the block: with ``start_activity`` that
    is the call itself, with ``execute_activity`` it is the ``await``.

    Raises:
        ConfigurationError: The topic is not usable.
    """
    token = _topic.set(check_topic(topic))
    try:
        yield
    finally:
        _topic.reset(token)


def chosen_topic() -> str | None:
    """Return the topic chosen by an enclosing :func:`stream_topic`."""
    return _topic.get()


@dataclass(frozen=True, slots=True)
class StreamOwner:
    """The workflow that a stream is named after, if that is not the running one.

    Attributes:
        workflow_id: Its id.
        first_execution_run_id: First run of its chain; ``None`` if only Temporal knows it.
        attempt: Which attempt of it this is.
        retries: Whether it will be retried if it fails.
        call: Which call of it this is: the same after a reset, another one for the next call.
    """

    workflow_id: str
    first_execution_run_id: str | None
    attempt: int = 1
    retries: bool = False
    call: str | None = None


_owner: ContextVar[StreamOwner | None] = ContextVar("streamq_owner", default=None)


@contextmanager
def stream_owner(owner: StreamOwner) -> Iterator[None]:
    """Let the streaming activities that are started in this block write another workflow's streams.

    For a workflow that runs an activity on behalf of another one.
    """
    token = _owner.set(owner)
    try:
        yield
    finally:
        _owner.reset(token)


def chosen_owner() -> StreamOwner | None:
    """Return the owner chosen by an enclosing :func:`stream_owner`."""
    return _owner.get()
