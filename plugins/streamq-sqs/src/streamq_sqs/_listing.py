"""Lists the queues of streams with their tags.

Design: docs/design/sqs.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from streamq.driver import Guard, StreamId, skip_foreign, together

from ._errors import BACKEND
from ._requests import SqsRequests
from ._tags import QueueTags

_TAGS_AT_ONCE = 16

ReadTags = Callable[[str], Coroutine[Any, Any, QueueTags | None]]
"""Returns the tags of a queue, by its URL; ``None`` to leave the queue out."""


@dataclass(frozen=True, slots=True)
class ListedQueue:
    """A queue that holds a stream.

    Attributes:
        stream: The stream.
        tags: The tags of the queue.
        url: The URL of the queue.
    """

    stream: StreamId
    tags: QueueTags
    url: str


async def list_queues(
    requests: SqsRequests, guard: Guard, prefix: str, read_tags: ReadTags
) -> AsyncIterator[ListedQueue]:
    """Iterate over the queues whose names begin with a prefix; foreign queues are left out.

    Args:
        requests: The requests to SQS.
        guard: Ends the iteration when the queue object is closed.
        prefix: Beginning of the names.
        read_tags: Reads the tags of each queue.
    """
    pages = requests.pages(prefix)
    while True:
        async with guard():
            page = await anext(pages, None)
        if page is None:
            return
        for urls in _parts(page):
            async with guard():
                found = await together(read_tags(url) for url in urls)
            for tags, url in zip(found, urls, strict=True):
                if tags is not None and tags.stream is not None:
                    yield ListedQueue(tags.stream, tags, url)
                elif tags is not None:
                    skip_foreign(BACKEND, url, "its tags name no stream")


def _parts(urls: Sequence[str]) -> list[Sequence[str]]:
    return [urls[at : at + _TAGS_AT_ONCE] for at in range(0, len(urls), _TAGS_AT_ONCE)]
