"""What a streaming activity needs to know from outside: its queue, and whose stream it writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.converter import PayloadConverter

from streamq._codec import Codec
from streamq._events import StreamId
from streamq._settings import Settings
from streamq.driver import ChunkQueue

from ._failure import no_plugin
from ._serializer import conversion

HEADER = "streamq"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an activity was scheduled, as far as the activity cannot know it by itself.

    Attributes:
        first_execution_run_id: First run of the workflow's chain; the activity knows the current
            run only.
        original_run_id: The current run, or the one that it was reset from.
        workflow_attempt: Which attempt of the workflow this is, from 1.
        workflow_retries: Whether the workflow will be tried again if it fails.
        topic: Chosen by the workflow for this call, if it was.
        workflow_id: Whose stream it is, if not that of the workflow that scheduled the activity.
    """

    first_execution_run_id: str
    original_run_id: str
    workflow_attempt: int
    workflow_retries: bool
    topic: str | None = None
    workflow_id: str | None = None

    def to_headers(self, headers: Mapping[str, Payload]) -> dict[str, Payload]:
        """Return the headers with this origin added."""
        [payload] = PayloadConverter.default.to_payloads([dataclasses.asdict(self)])
        return {**headers, HEADER: payload}

    @classmethod
    def from_headers(cls, headers: Mapping[str, Payload]) -> Origin | None:
        """Return the origin that the headers tell, or ``None`` without one that can be read."""
        payload = headers.get(HEADER)
        if payload is None:
            return None
        try:
            [data] = PayloadConverter.default.from_payloads([payload])
            return cls(**data)
        except Exception:  # noqa: BLE001 - whatever another SDK wrote there: describe instead
            return None


@dataclass(frozen=True, slots=True)
class ActivityContext:
    """What the plugin gives every activity of its worker.

    Attributes:
        queue: The worker's queue.
        settings: Limits and defaults.
        client: The worker's client.
        origin: Where the activity was scheduled, if that was told.
    """

    queue: ChunkQueue
    settings: Settings
    client: Client
    origin: Origin | None

    def codec(self, stream: StreamId) -> Codec | None:
        """Return what the records of a stream go through: the client's payload codec, if any."""
        return conversion(self.client.data_converter, stream.name, self.client.namespace)[1]


current: ContextVar[ActivityContext | None] = ContextVar("streamq_activity", default=None)
_writers: ContextVar[dict[str, Any] | None] = ContextVar("streamq_writers", default=None)


def activity_context() -> ActivityContext:
    """Return the context of the running activity.

    Raises:
        ApplicationError: The worker runs without the plugin; not retryable.
    """
    context = current.get()
    if context is None:
        raise no_plugin()
    return context


@contextmanager
def giving_writers(writers: dict[str, Any]) -> Iterator[None]:
    """Give the function that runs in this block, or in a thread started from it, its writers."""
    token = _writers.set(writers)
    try:
        yield
    finally:
        _writers.reset(token)


def taken_writers() -> dict[str, Any]:
    """Return the writers of the running activity, by parameter.

    Raises:
        ApplicationError: The worker runs without the plugin, or there is no worker; not retryable.
    """
    writers = _writers.get()
    if writers is None:
        raise no_plugin("; who calls the function itself, in a unit test, passes stream=")
    return writers
