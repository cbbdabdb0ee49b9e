"""Defines the protocol by which programs of the Temporal SDK publish to a workflow's log.

``temporalio.contrib.workflow_streams`` and everything built on it publish by one signal to the
workflow and read by one update or query. These names and shapes are shared by all SDKs. The SDK's
classes are used by their public names only; :func:`check_protocol` finds out whether they still
speak this protocol.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.contrib import workflow_streams as original
from temporalio.converter import DataConverter
from temporalio.service import __version__

from streamq._errors import ConfigurationError

from ._items import PublishEntry

PUBLISH_SIGNAL = "__temporal_workflow_stream_publish"
POLL = "__temporal_workflow_stream_poll"
OFFSET_QUERY = "__temporal_workflow_stream_offset"

PATCH = "streamq-workflow-streams"
"""Patch id of the executions that take the signal, and pass on what the SDK's class publishes."""

_CHECKED = ("topic of a check", "value of a check")


@dataclass
class PublishInput:
    """Argument of the signal: one batch.

    Attributes:
        items: The items in order.
        publisher_id: Identifies the publisher; empty if batches may repeat.
        sequence: Number of the batch, from 1; a repeat has the same number.
    """

    items: list[PublishEntry] = field(default_factory=list)
    publisher_id: str = ""
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class PublishedBatch:
    """What a publisher sends at once.

    Attributes:
        publisher: Identifies the publisher; empty if batches may repeat.
        sequence: Grows with each batch; a repeat has the same.
        items: Topics and payloads in order.
    """

    publisher: str
    sequence: int
    items: Sequence[tuple[str, Payload]]


def batch_of(args: Sequence[Any]) -> PublishedBatch:
    """Return the batch that a signal carries.

    Raises:
        Exception: It is not of the protocol's shape.
    """
    [given] = args
    items = [(each.topic, PublishEntry(each.topic, each.data).payload()) for each in given.items]
    return PublishedBatch(given.publisher_id, given.sequence, items)


class _Recorder:
    """A handle of no workflow: records what would be sent."""

    id = "streamq-check"

    def __init__(self) -> None:
        self.sent: list[tuple[str, Sequence[Any]]] = []

    async def signal(self, name: str, *args: Any, **options: Any) -> None:
        self.sent.append((name, args))


async def check_protocol() -> None:
    """Publish to a recorder with the SDK's classes, and compare what they send.

    Raises:
        ConfigurationError: They do not speak the protocol that is known here.
    """
    recorder: Any = _Recorder()
    topic, value = _CHECKED
    [payload] = DataConverter.default.payload_converter.to_payloads([value])
    try:
        publisher = original.WorkflowStreamClient(recorder)
        publisher.topic(topic).publish(payload)
        async with asyncio.timeout(5):
            await publisher.flush()
        [(name, args)] = recorder.sent
        batch = batch_of(args)
        if (name, batch.sequence, batch.items) != (PUBLISH_SIGNAL, 1, [(topic, payload)]):
            raise ValueError(f"it sends {name!r} with {args!r}")
        if not batch.publisher:
            raise ValueError("its publisher has no name")
        for method, parameters in (
            (original.WorkflowStream.get_state, {"self"}),
            (original.WorkflowStream.truncate, {"self", "up_to_offset"}),
            (original.WorkflowStream.detach_pollers, {"self"}),
        ):
            if not parameters <= set(inspect.signature(method).parameters):
                raise ValueError(f"{method.__qualname__} has other parameters")
        fields = {each.name for each in dataclasses.fields(original.WorkflowStreamState)}
        if not fields >= {"log", "base_offset", "publishers"}:
            raise ValueError(f"the state has the fields {sorted(fields)}")
        original.PublisherState(sequence=1, last_seen=datetime.now(UTC))
    except Exception as exc:
        raise ConfigurationError(
            "route_workflow_streams: temporalio.contrib.workflow_streams of temporalio "
            f"{__version__} publishes in a way that is not known here "
            f"({type(exc).__name__}: {exc}); use a newer streamq or an older temporalio"
        ) from exc
