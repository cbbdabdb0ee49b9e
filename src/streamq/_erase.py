"""Erases streams of a tenant: all of them, those of a workflow, or those below a prefix.

Design: docs/design/sweeping.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ._events import StreamId
from ._executions import execution_of
from ._settings import Settings, load_settings
from .calling import _calls as calling
from .driver import ChunkQueue
from .opening._open import open_queue, retry_policy, stream_id

_CONCURRENT_STREAMS = 16
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class StreamSelection:
    """Streams of one tenant.

    Attributes:
        tenant: The tenant.
        prefix: Text that their names begin with.
        workflow: Id of the workflow whose runs they belong to; ``None`` for any or none.
    """

    tenant: str
    prefix: str = ""
    workflow: str | None = None

    def covers(self, name: str) -> bool:
        """Whether a stream of this name is selected."""
        if self.workflow is not None:
            found = execution_of(name)
            if found is None or (found.kind, found.id) != ("workflow", self.workflow):
                return False
        return name.startswith(self.prefix)

    async def find(self, queue: ChunkQueue) -> list[StreamId]:
        """Return the selected streams that there are, sorted by name.

        Raises:
            CapabilityError: The backend does not list streams.
            StreamqError: It cannot be asked.
        """
        prefix = self.prefix
        if self.workflow is not None and f"{self.workflow}/".startswith(prefix):
            prefix = f"{self.workflow}/"
        async with contextlib.aclosing(calling.streams(queue, self.tenant, prefix)) as infos:
            names = [info.stream.name async for info in infos if self.covers(info.stream.name)]
        return [StreamId(self.tenant, name) for name in sorted(names)]


async def erase_streams(
    *,
    prefix: str = "",
    workflow: str | None = None,
    tenant: str | None = None,
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
    on_erased: Callable[[StreamId], None] | None = None,
) -> int:
    """Delete every stream of a tenant, of a workflow's runs, or whose name begins with a text.

    What began meanwhile is deleted, too, as far as listings show it: they are repeated, three
    times at most. A producer that still runs is not stopped and brings its stream back, so stop
    producers first. Whether the bytes are gone at once depends on the backend: see its capability
    ``erases``.

    Args:
        prefix: Text that the names begin with; empty for all.
        workflow: Id of the workflow.
        tenant: By default the configured one.
        queue: An open queue to use; it stays open. By default one is opened for this.
        settings: By default the configured ones.
        on_erased: Called after each stream.

    Returns:
        How many streams were deleted.

    Raises:
        CapabilityError: The backend does not list streams.
        StreamqError: A stream cannot be deleted; others may have been.

    Cancellation: some streams are deleted. Calling it again continues.
    """
    chosen = settings or load_settings()
    chosen = chosen if tenant is None else chosen.model_copy(update={"tenant": tenant})
    selection = StreamSelection(stream_id("any", chosen).tenant, prefix, workflow)
    async with contextlib.AsyncExitStack() as stack:
        used = queue
        if used is None:
            used = await stack.enter_async_context(open_queue(chosen))
        erased: set[StreamId] = set()  # a listing may lag behind and show one twice
        for _ in range(_ROUNDS):
            found = await selection.find(used)
            if not found:
                break
            await _erase(used, found, chosen, on_erased)
            erased.update(found)
    return len(erased)


async def _erase(
    queue: ChunkQueue,
    streams: list[StreamId],
    settings: Settings,
    on_erased: Callable[[StreamId], None] | None,
) -> None:
    turns = asyncio.Semaphore(_CONCURRENT_STREAMS)

    async def erase(stream: StreamId) -> None:
        async with turns:
            retry = retry_policy(settings, queue, stream)
            await retry.run(partial(calling.delete, queue, stream))
        if on_erased is not None:
            on_erased(stream)

    try:
        async with asyncio.TaskGroup() as group:
            for stream in streams:
                group.create_task(erase(stream))
    except ExceptionGroup as exc:
        raise exc.exceptions[0] from None  # the first one has stopped the others
