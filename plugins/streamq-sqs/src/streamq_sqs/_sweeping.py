"""Deletes the queues of streams whose time to live has passed.

Design: docs/design/sqs.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from streamq.driver import Guard, StreamId, StreamNotFoundError

from ._listing import list_queues
from ._requests import SqsRequests
from ._tags import QueueTags


async def sweep(
    requests: SqsRequests, guard: Guard, prefix: str, forget: Callable[[StreamId], None]
) -> int:
    """Delete the expired queues whose names begin with a prefix; return how many it deleted.

    Args:
        requests: The requests to SQS.
        guard: Ends the sweep when the queue object is closed.
        prefix: Beginning of the names.
        forget: Removes everything that is known of a stream.
    """

    async def expired_tags(url: str) -> QueueTags | None:
        return await _expired_tags(requests, url)

    swept = 0
    async for each in list_queues(requests, guard, prefix, expired_tags):
        async with guard(each.stream):
            if await expired_tags(each.url) is None:
                continue  # since it was listed, a writer has renewed it or another sweep deleted it
            forget(each.stream)
            await requests.delete(each.url)
            swept += 1
    return swept


async def _expired_tags(requests: SqsRequests, url: str) -> QueueTags | None:
    """Return the tags of an expired queue of streamq; ``None`` for any other queue.

    An empty queue expires after its time to live, one with messages after twice that time.
    """
    tags = await requests.tags_if_there(url)
    if tags is None or tags.stream is None or tags.expires_in:
        return None
    if tags.age_seconds < 2 * tags.ttl_seconds:
        with contextlib.suppress(StreamNotFoundError):
            if await requests.count(url):
                return None  # its reader is late
    return tags
