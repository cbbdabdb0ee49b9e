"""Wraps a real queue and fails by script.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeAlias

from streamq.driver import (
    BackendError,
    BackendUnavailableError,
    Capabilities,
    ChunkQueue,
    Entry,
    Stored,
    StreamId,
    StreamInfo,
)

from ._queue_faults import METHODS, Block, Call, Delay, Fault, Forward, Pass, injected_error

Chooser: TypeAlias = Callable[[Call], Fault | None]
"""Picks the fault for a call, or ``None`` for no fault."""


class FaultyQueue(ChunkQueue):
    """Passes calls on to a real queue, unless the script has a fault for them.

    Order of precedence: an outage (:meth:`take_down`), the next scripted fault of the method, the
    fault set by :meth:`always`. Appends that exceed ``capabilities.max_record_bytes`` are refused,
    so that tests can use a smaller limit than that of the real queue.

    Args:
        inner: The real queue; closed together with this one.
        capabilities: Capabilities to declare instead of those of ``inner``.

    Attributes:
        calls: Every call so far, in order.
        running: Number of calls of each method that are in progress.
        most_running: Largest number of them at any one time.
    """

    def __init__(self, inner: ChunkQueue, *, capabilities: Capabilities | None = None) -> None:
        self.backend = inner.backend
        self.capabilities = capabilities or inner.capabilities
        self.hidden_seconds = inner.hidden_seconds
        self.inner = inner
        self.calls: list[Call] = []
        self.running: Counter[str] = Counter()
        self.most_running: Counter[str] = Counter()
        self._scripts: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self._always: dict[str, Chooser] = {}
        self._outage: Exception | None = None
        self._interrupted = asyncio.Event()
        self._has_ended = asyncio.Event()

    # -- the script ----------------------------------------------------------------------------

    def script(self, method: str, *faults: Fault) -> None:
        """Inject these faults into the next calls of a method, one each, after earlier scripts.

        Raises:
            ValueError: There is no such method.
        """
        self._scripts[_known(method)].extend(faults)

    def always(self, method: str, fault: Fault | Chooser) -> None:
        """Inject a fault into every call of a method for which none is scripted.

        Args:
            method: Its name.
            fault: The fault, or a function that picks one for each call.

        Raises:
            ValueError: There is no such method.
        """
        self._always[_known(method)] = (lambda _: fault) if isinstance(fault, Fault) else fault

    def heal(self) -> None:
        """Forget all faults that have not happened yet, and end an outage."""
        self._scripts.clear()
        self._always.clear()
        self.bring_up()

    def take_down(self, error: Exception | None = None) -> None:
        """Fail every call from now on, including waiting ones; by default as unavailable."""
        self._outage = error or BackendUnavailableError(
            "injected: the backend is away", backend=self.backend
        )
        self._interrupted.set()

    def bring_up(self) -> None:
        """End an outage."""
        self._outage = None
        self._interrupted.clear()

    @property
    def unused(self) -> dict[str, int]:
        """Number of scripted faults that have not happened yet, by method."""
        return {method: len(faults) for method, faults in self._scripts.items() if faults}

    @property
    def appends(self) -> list[tuple[Entry, ...]]:
        """The entries of every append so far, in order."""
        return [call.entries for call in self.calls if call.method == "append"]

    def count(self, method: str) -> int:
        """Return the number of calls of a method so far."""
        return sum(call.method == _known(method) for call in self.calls)

    async def idle(self, method: str) -> None:
        """Wait until no call of a method is in progress."""
        while self.running[_known(method)]:
            self._has_ended.clear()
            await self._has_ended.wait()

    # -- the contract: docstrings are inherited ------------------------------------------------

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        await self._call(
            Call(method="append", stream=stream, entries=tuple(entries), ttl=ttl), self._append
        )

    async def read(
        self,
        stream: StreamId,
        after: str,
        *,
        max_records: int,
        max_bytes: int,
        max_wait: float,
    ) -> Sequence[Stored]:
        async def forward(call: Call) -> Sequence[Stored]:
            return await self.inner.read(
                stream,
                call.after,
                max_records=call.max_records,
                max_bytes=max_bytes,
                max_wait=call.max_wait,
            )

        call = Call(
            method="read", stream=stream, after=after, max_records=max_records, max_wait=max_wait
        )
        found: Sequence[Stored] = await self._call(call, forward)
        return found

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        async def forward(_: Call) -> StreamInfo:
            return await self.inner.describe(stream, last=last)

        info: StreamInfo = await self._call(Call(method="describe", stream=stream), forward)
        return info

    async def delete(self, stream: StreamId) -> None:
        await self._call(Call(method="delete", stream=stream), lambda _: self.inner.delete(stream))

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        async def forward(_: Call) -> list[StreamInfo]:
            return [info async for info in self.inner.streams(tenant, prefix)]

        for info in await self._call(Call(method="streams"), forward):
            yield info

    async def commit(self, stream: StreamId, upto: str) -> None:
        await self._call(
            Call(method="commit", stream=stream, after=upto),
            lambda call: self.inner.commit(stream, call.after),
        )

    async def newest_epoch(self, stream: StreamId) -> int:
        newest: int = await self._call(
            Call(method="newest_epoch", stream=stream), lambda _: self.inner.newest_epoch(stream)
        )
        return newest

    async def sweep(self) -> int:
        swept: int = await self._call(Call(method="sweep"), lambda _: self.inner.sweep())
        return swept

    async def aclose(self) -> None:
        await self.inner.aclose()

    # -- inside --------------------------------------------------------------------------------

    async def _append(self, call: Call) -> None:
        assert call.stream is not None
        limit = self.capabilities.max_record_bytes
        for entry in call.entries:
            if len(entry.data) > limit:
                raise BackendError(
                    f"a record of {len(entry.data)} bytes exceeds max_record_bytes={limit}",
                    backend=self.backend,
                    stream=str(call.stream),
                )
        await self.inner.append(call.stream, call.entries, ttl=call.ttl)

    async def _call(self, call: Call, forward: Forward) -> Any:
        self.calls.append(call)
        method = call.method
        self.running[method] += 1
        self.most_running[method] = max(self.most_running[method], self.running[method])
        try:
            self._check_up()
            fault = self._next(call)
            if method != "read" and not isinstance(fault, (Block, Delay)):
                return await fault.apply(call, forward)
            return await self._interruptible(fault.apply(call, forward))
        finally:
            self.running[method] -= 1
            self._has_ended.set()

    def _next(self, call: Call) -> Fault:
        scripted = self._scripts[call.method]
        if scripted:
            return scripted.popleft()
        choose = self._always.get(call.method)
        return (choose(call) if choose else None) or Pass()

    async def _interruptible(self, work: Any) -> Any:
        """Await work that may take long, unless an outage comes first."""
        working = asyncio.ensure_future(work)
        interrupted = asyncio.ensure_future(self._interrupted.wait())
        try:
            await asyncio.wait((working, interrupted), return_when=asyncio.FIRST_COMPLETED)
            self._check_up()
            return await working
        finally:
            for task in (working, interrupted):
                task.cancel()
            await asyncio.gather(working, interrupted, return_exceptions=True)

    def _check_up(self) -> None:
        if self._outage is not None:
            raise injected_error(self._outage, Call(method=""))


def _known(method: str) -> str:
    if method not in METHODS:
        raise ValueError(f"{method!r} is not one of {', '.join(METHODS)}")
    return method
