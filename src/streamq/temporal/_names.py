"""What a stream of a workflow is called: the same for every attempt, retry and continued run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from streamq._errors import ConfigurationError

DEFAULT_TOPIC = "default"

_topic: ContextVar[str | None] = ContextVar("streamq_topic", default=None)


@dataclass(frozen=True, slots=True)
class Owner:
    """The workflow that a stream is named after, where that is not the running one.

    Attributes:
        workflow_id: Its id.
        first_execution_run_id: First run of its chain.
        attempt: Which attempt of it this is.
        retries: Whether it will be tried again if it fails.
        call: Which call of it this is: the same after a reset, another one for the next call.
    """

    workflow_id: str
    first_execution_run_id: str
    attempt: int = 1
    retries: bool = False
    call: str | None = None


_owner: ContextVar[Owner | None] = ContextVar("streamq_owner", default=None)


def stream_name(workflow_id: str, first_execution_run_id: str, topic: str = DEFAULT_TOPIC) -> str:
    """Return the name of a stream: ``{workflow_id}/{first_execution_run_id}/{topic}``.

    It stays the same for every attempt of the activity, for workflow retries, resets and
    continue-as-new, and differs when the workflow id is used again. ``WorkflowHandle`` has the run
    id as ``first_execution_run_id``; inside a workflow it is
    ``workflow.info().first_execution_run_id``.

    Args:
        workflow_id: Id of the workflow; it may contain ``/``.
        first_execution_run_id: Run id of the first run of the chain.
        topic: Which of the workflow's streams; without ``/``.

    Raises:
        ConfigurationError: The topic is not usable, or an id is empty.
    """
    check_topic(topic)
    if not workflow_id or not first_execution_run_id:
        raise ConfigurationError(
            f"workflow id {workflow_id!r} and first execution run id {first_execution_run_id!r} "
            "must not be empty"
        )
    return f"{workflow_id}/{first_execution_run_id}/{topic}"


def check_topic(topic: str) -> str:
    """Return the topic if it is usable.

    Raises:
        ConfigurationError: It is empty, contains ``/`` or is not printable.
    """
    if not isinstance(topic, str) or not topic or "/" in topic or not topic.isprintable():
        raise ConfigurationError(
            f"topic {topic!r} must be printable text without '/' and not empty"
        )
    return topic


@contextmanager
def stream_topic(topic: str) -> Iterator[None]:
    """Choose the topic of the streaming activities that a workflow starts inside this block.

    Wins over the topic given to ``@streaming_activity``. Only for workflow code, on workers that
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


@contextmanager
def stream_owner(owner: Owner) -> Iterator[None]:
    """Let the streaming activities that are started in this block write another workflow's streams.

    For a workflow that runs an activity on behalf of another one.
    """
    token = _owner.set(owner)
    try:
        yield
    finally:
        _owner.reset(token)


def chosen_owner() -> Owner | None:
    """Return the owner chosen by an enclosing :func:`stream_owner`."""
    return _owner.get()
