"""Inspects the queues of streams without the driver, and reads as a plain reader does."""

from __future__ import annotations

from typing import Any

from streamq.driver import StreamId
from streamq_sqs._naming import QueueNames

NAMES = QueueNames("streamq-", fifo=True)
PATIENCE = 20.0


def urls(plain: Any, stream: StreamId) -> list[str]:
    """Return the URLs of a stream's queues, without the driver."""
    found = plain.list_queues(QueueNamePrefix=NAMES.queue(stream)).get("QueueUrls", [])
    return [str(each) for each in found]


def tags(plain: Any, stream: StreamId) -> dict[str, str]:
    """Return the tags of a stream's queue, without the driver."""
    found = plain.list_queue_tags(QueueUrl=urls(plain, stream)[0])["Tags"]
    return {str(name): str(value) for name, value in found.items()}


async def read(queue: Any, stream: StreamId, after: str) -> Any:
    """Acknowledge everything up to a position, and read on."""
    if after:
        await queue.commit(stream, after)
    return await queue.read(stream, after, max_records=10, max_bytes=10**6, max_wait=PATIENCE)
