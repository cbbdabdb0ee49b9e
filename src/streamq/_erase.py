"""Erases streams of a tenant: all of them, those of a workflow, or those below a prefix.

Design: docs/design/sweeping.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ._errors import ConfigurationError, StreamNotFoundError, StreamsLeftError
from ._events import StreamId, shown
from ._executions import execution_of
from ._settings import Settings, load_settings
from .calling import _calls as calling
from .driver import ChunkQueue
from .opening._open import open_queue, retry_policy, stream_id

_CONCURRENT_STREAMS = 16
_ROUNDS = 3
_NAMED = 5


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
    prefix: str | None = None,
    workflow: str | None = None,
    every: bool = False,
    tenant: str | None = None,
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
    on_erased: Callable[[StreamId], None] | None = None,
) -> int:
    """Delete every stream of a tenant, of a workflow's runs, or whose name begins with a text.

    Give one of ``prefix``, ``workflow`` and ``every``. What began meanwhile is deleted, too:
    listings are repeated until nothing is left, three times at most. A producer that still runs is
    not stopped and brings its stream back, so stop producers first. Streams that the backend does
    not list are not found. Whether the bytes are gone at once depends on the backend: see its
    capability ``erases``.

    Args:
        prefix: Text that the names begin with.
        workflow: Id of the workflow.
        every: All streams of the tenant. It has to be said: an id that is ``None`` by mistake would
            otherwise delete everything.
        tenant: By default the configured one.
        queue: An open queue to use; it stays open. By default one is opened for this.
        settings: By default the configured ones.
        on_erased: Called after each stream.

    Returns:
        How many streams were deleted.

    Raises:
        ConfigurationError: Not one of ``prefix``, ``workflow`` and ``every`` is given, or it is
            empty.
        CapabilityError: The backend does not list streams.
        StreamsLeftError: After the last listing there are such streams: producers go on.
        StreamqError: A stream cannot be deleted; others may have been.

    Cancellation: some streams are deleted. Calling it again continues.
    """
    chosen = settings or load_settings()
    chosen = chosen if tenant is None else chosen.model_copy(update={"tenant": tenant})
    own_tenant = stream_id("any", chosen).tenant
    if (prefix is not None) + (workflow is not None) + every != 1:
        raise ConfigurationError(
            "say which streams are to be erased: one of prefix, workflow and every"
        )
    if "" in (prefix, workflow):
        raise ConfigurationError(
            "the prefix or workflow whose streams are to be erased is empty, which selects "
            "nothing; every=True is for all streams"
        )
    selection = StreamSelection(own_tenant, prefix or "", workflow)
    if queue is not None:
        return await erase_selected(selection, queue, chosen, on_erased)
    async with open_queue(chosen) as opened:
        return await erase_selected(selection, opened, chosen, on_erased)


async def erase_selected(
    selection: StreamSelection,
    queue: ChunkQueue,
    settings: Settings,
    on_erased: Callable[[StreamId], None] | None = None,
) -> int:
    """Delete the selected streams, as :func:`erase_streams` does, and return their number.

    Raises:
        CapabilityError: The backend does not list streams.
        StreamsLeftError: There are such streams again after each deletion.
        StreamqError: A stream cannot be deleted; others may have been.

    Cancellation: some streams are deleted.
    """
    erased: set[StreamId] = set()  # a listing may lag behind and show one twice
    left: list[str] = []

    async def erase(stream: StreamId) -> None:
        retry = retry_policy(settings, queue, stream)
        await retry.run(partial(calling.delete, queue, stream))
        erased.add(stream)
        if on_erased is not None:
            on_erased(stream)

    async def look(stream: StreamId) -> None:
        retry = retry_policy(settings, queue, stream)
        with contextlib.suppress(StreamNotFoundError):
            await retry.run(partial(calling.describe, queue, stream))
            left.append(stream.name)

    for _ in range(_ROUNDS):
        found = await selection.find(queue)
        if not found:
            return len(erased)
        await _for_each(found, erase)
    await _for_each(await selection.find(queue), look)
    if left:
        raise _left(selection, len(erased), sorted(left))
    return len(erased)


def _left(selection: StreamSelection, erased: int, left: Sequence[str]) -> StreamsLeftError:
    some = ", ".join(shown(name) for name in left[:_NAMED])
    rest = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    return StreamsLeftError(
        f"deleted {erased} streams of tenant {selection.tenant}, and {len(left)} are left "
        f"({some}{rest}), which began anew meanwhile: stop their producers, and delete again",
        erased=erased,
        left=left,
    )


async def _for_each(
    streams: Sequence[StreamId], call: Callable[[StreamId], Awaitable[None]]
) -> None:
    turns = asyncio.Semaphore(_CONCURRENT_STREAMS)

    async def in_turn(stream: StreamId) -> None:
        async with turns:
            await call(stream)

    try:
        async with asyncio.TaskGroup() as group:
            for stream in streams:
                group.create_task(in_turn(stream))
    except ExceptionGroup as exc:
        raise exc.exceptions[0] from None  # the first one has stopped the others
