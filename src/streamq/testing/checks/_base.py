"""The base class of all checks: pytest fixtures and helper methods.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import pytest_asyncio

from streamq.driver import (
    START,
    BackendUnavailableError,
    Capabilities,
    ChunkQueue,
    DriverSettings,
    QueueOptions,
    Stored,
    StreamId,
    StreamNotFoundError,
)
from streamq.testing._await_stacks import written_call
from streamq.testing._harness import LONG_TTL, MANDATORY_HOOKS, BackendHarness, OpenQueue
from streamq.testing._shown import shown
from streamq.testing._virtual_time import VirtualTimeLoop

from ._conditions import Conditions, conditions_of
from ._deadlines import within
from ._records import data_of, new_stream
from ._stuck import unstuck
from ._verdicts import broken, refuses, same_records

T = TypeVar("T")

OPENED = pytest.StashKey[tuple[str, dict[str, bool | int | str]]]()
"""Stored with a test: the label of the backend, and the capabilities that the queue declares."""

_MAX_READ_BYTES = 256 * 2**20
_VIRTUAL_FACTOR = 100  # virtual time costs nothing, and some checks wait for minutes


def _limited(check: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Any]:
    """Let a check fail with the call that hangs, instead of waiting for it for ever."""

    @functools.wraps(check)
    async def limited(self: Checks, *args: Any, **fixtures: Any) -> None:
        __tracebackhide__ = True
        with unstuck(*self._stuck_seconds):
            async with within(self.check_seconds, "the check"):
                await check(self, *args, **fixtures)

    return limited


class Checks:
    """Fixtures and helpers of :class:`streamq.testing.DriverSuite`."""

    group: ClassVar[str] = ""
    """The subject of the checks of a class, in one or two words."""

    harness_type: ClassVar[type[BackendHarness]]
    """The harness to make for each check; or override the fixture :meth:`harness`."""

    virtual_time: ClassVar[bool] = False
    """Run every check on a :class:`VirtualTimeLoop`; for backends inside this process only."""

    _stuck_seconds = (2 * BackendHarness.patience_seconds, BackendHarness.check_seconds)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, check in list(vars(cls).items()):
            if name.startswith("test_") and inspect.iscoroutinefunction(check):
                setattr(cls, name, _limited(check))

    # -- fixtures ------------------------------------------------------------------------------

    @pytest.fixture
    def harness(self, tmp_path: Path) -> BackendHarness:
        """Return the harness, not started. Override it to use what other fixtures have made."""
        made = getattr(self, "harness_type", None)
        if made is None:
            raise NotImplementedError(
                f"{type(self).__name__} sets neither harness_type nor a fixture called harness"
            )
        found = made(tmp_path)
        if not isinstance(found, BackendHarness):
            raise TypeError(
                f"harness_type of {type(self).__name__} makes no BackendHarness: {found!r}"
            )
        return found

    @pytest.fixture
    def _declared(self, request: pytest.FixtureRequest, harness: BackendHarness) -> None:
        """Skip a check of what the driver does not declare, before anything is started for it."""
        request.node.stash[OPENED] = (harness.label, None)
        conditions = conditions_of(request.function)
        self._skip_undeclared(harness, harness.driver.capabilities, conditions)

    @pytest_asyncio.fixture
    async def backend(
        self, harness: BackendHarness, _declared: None
    ) -> AsyncIterator[BackendHarness]:
        """Return the harness, started."""
        async with harness:
            yield harness

    @pytest_asyncio.fixture
    async def open_with(
        self, backend: BackendHarness
    ) -> AsyncIterator[Callable[[DriverSettings], Awaitable[ChunkQueue]]]:
        """Return a function that opens a queue with given settings."""
        async with AsyncExitStack() as stack:

            async def close(queue: ChunkQueue) -> None:
                async with within(2 * backend.patience_seconds, "closing a queue of the check"):
                    await queue.aclose()

            async def open_with(settings: DriverSettings, ttl: timedelta = LONG_TTL) -> ChunkQueue:
                async with within(2 * backend.patience_seconds, "opening a queue"):
                    queue = await backend.driver.open(QueueOptions(ttl=ttl), settings)
                stack.push_async_callback(close, queue)
                return queue

            yield open_with

    @pytest_asyncio.fixture
    async def open_queue(
        self, backend: BackendHarness, open_with: Callable[..., Awaitable[ChunkQueue]]
    ) -> OpenQueue:
        """Return a function that opens one more connection."""

        async def open_queue(ttl: timedelta = LONG_TTL) -> ChunkQueue:
            return await open_with(backend.settings(), ttl=ttl)

        return open_queue

    @pytest_asyncio.fixture
    async def queue(self, open_queue: OpenQueue) -> ChunkQueue:
        """Return an open queue."""
        return await open_queue()

    @pytest_asyncio.fixture
    async def other(self, open_queue: OpenQueue) -> ChunkQueue:
        """Return a second connection."""
        return await open_queue()

    @pytest.fixture
    def stream(self) -> StreamId:
        """Return a stream that no other test uses."""
        return new_stream()

    @pytest_asyncio.fixture(autouse=True)
    async def _conditions(
        self, request: pytest.FixtureRequest, backend: BackendHarness, queue: ChunkQueue
    ) -> AsyncIterator[None]:
        self.patience = backend.patience_seconds
        self.check_seconds = backend.check_seconds
        self._stuck_seconds = (2 * backend.patience_seconds, backend.check_seconds)
        if isinstance(asyncio.get_running_loop(), VirtualTimeLoop):
            self.check_seconds *= _VIRTUAL_FACTOR
        self._begun: list[asyncio.Task[Any]] = []
        request.node.stash[OPENED] = (backend.label, queue.capabilities.to_dict())
        conditions = conditions_of(request.function)
        self._skip_undeclared(backend, queue.capabilities, conditions)
        for hook in conditions.hooks:
            if backend.supplies(hook):
                continue
            named = f"{type(backend).__name__} does not supply {hook}()"
            for flag, mandatory in MANDATORY_HOOKS.items():
                if hook in mandatory and getattr(queue.capabilities, flag):
                    pytest.fail(
                        f"{named}, without which {queue.backend} cannot prove {flag!r}, which it "
                        "declares",
                        pytrace=False,
                    )
            pytest.skip(named)
        yield
        # A failed check may leave calls in progress; the queues are closed after this.
        begun, self._begun = self._begun, []  # pytest keeps this object, which must not keep them
        for task in begun:
            task.cancel()
        if begun:
            ended, _ = await asyncio.wait(begun, timeout=self.patience)
            for task in ended:
                _ = task.cancelled() or task.exception()

    @staticmethod
    def _skip_undeclared(
        backend: BackendHarness, declared: Capabilities, conditions: Conditions
    ) -> None:
        for flag in conditions.capabilities:
            if not getattr(declared, flag):
                pytest.skip(f"{backend.driver.name} does not declare {flag!r}")

    # -- helpers -------------------------------------------------------------------------------

    async def read(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        after: str = START,
        *,
        max_records: int = 1000,
        max_bytes: int = _MAX_READ_BYTES,
        max_wait: float | None = None,
    ) -> Sequence[Stored]:
        """Read once, with generous bounds, within twice the patience of the harness.

        On a backend without replay, the records before are acknowledged first.
        """
        if after != START and not queue.capabilities.replay:
            await queue.commit(stream, after)
        wait = self.patience if max_wait is None else max_wait
        async with within(2 * self.patience, f"a read with max_wait={wait:g}"):
            return await queue.read(
                stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=wait
            )

    async def read_many(
        self, queue: ChunkQueue, stream: StreamId, count: int, after: str = START
    ) -> list[Stored]:
        """Read until ``count`` records have arrived, or a read returns nothing."""
        found: list[Stored] = []
        while len(found) < count:
            batch = await self.read(queue, stream, after)
            if not batch:
                break
            found += batch
            after = batch[-1].position
        return found

    async def expect(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        expected: list[bytes],
        after: str = START,
        *,
        cause: str = "",
    ) -> list[Stored]:
        """Read the stream to its end and compare: nothing missing, nothing extra, in order.

        Args:
            queue: The connection to read on.
            stream: Which stream.
            expected: The data of the records that it has to have.
            after: The position to begin at.
            cause: What usually causes a difference; by default what its kind suggests.
        """
        __tracebackhide__ = True
        found = await self.read_many(queue, stream, len(expected), after)
        tail = found[-1].position if found else after
        found += await self.read(queue, stream, tail, max_wait=0)
        place = "from its beginning" if after == START else f"after position {after!r}"
        if queue.capabilities.ordered:
            same_records(data_of(found), expected, f"the stream's records {place}", cause=cause)
        else:
            what = f"the stream's records {place}, sorted (it does not keep order)"
            same_records(sorted(data_of(found)), sorted(expected), what, cause=cause)
        return found

    def begin(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a call in the background; it is cancelled at the end of the check."""
        task = asyncio.get_running_loop().create_task(call)
        self._begun.append(task)
        return task

    async def blocked(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a call that has nothing to return yet, and assert that it waits."""
        __tracebackhide__ = True
        written = written_call(call)
        task = self.begin(call)
        # There is no event for "waits": the only proof is that the call does not return.
        done, _ = await asyncio.wait({task}, timeout=0.05)
        if done:
            error = None if task.cancelled() else task.exception()
            broken(
                "a call with nothing to return came back before its max_wait",
                expected=f"{written} waits",
                seen=f"it raised {shown(error)}"
                if error
                else f"it returned {shown(task.result())}",
                cause="a read returns empty after a wake-up for another stream, or caps its wait "
                "(a poll of the server): go on waiting until max_wait has passed",
            )
        return task

    async def until_answered(self, call: Callable[[], Awaitable[object]]) -> None:
        """Repeat a call while the backend is unavailable, as core does; raise any other error."""
        __tracebackhide__ = True
        clock = asyncio.get_running_loop().time
        give_up = clock() + self.patience
        while True:
            try:
                async with within(max(0.1, give_up - clock()), "a call that is repeated"):
                    await call()
            except BackendUnavailableError as exc:
                if clock() > give_up:
                    broken(
                        f"the backend is unavailable for longer than {self.patience:g} s",
                        expected="a repeated call succeeds once the backend answers again",
                        seen=exc,
                        cause="the queue keeps using a connection that is broken: forget it with "
                        "the error, so that the next call connects anew",
                    )
                await asyncio.sleep(0.02)
            else:
                return

    async def is_gone(self, queue: ChunkQueue, stream: StreamId) -> bool:
        """Whether the stream does not exist."""
        try:
            await queue.describe(stream)
        except StreamNotFoundError:
            return True
        return False

    async def eventually(
        self, condition: Callable[[], Awaitable[bool]], what: str, *, cause: str = ""
    ) -> None:
        """Poll until the condition holds; fail after the patience of the harness."""
        __tracebackhide__ = True
        clock = asyncio.get_running_loop().time
        give_up = clock() + self.patience
        while True:
            async with within(max(0.1, give_up - clock()), f"asking whether {what}", cause=cause):
                if await condition():
                    return
            if clock() > give_up:
                seen = f"not true after {self.patience:g} s"
                broken(f"{seen}: {what}", expected=what, seen=seen, cause=cause)
            await asyncio.sleep(0.02)

    async def expect_missing(self, queue: ChunkQueue, stream: StreamId, why: str) -> None:
        """Fail unless the stream does not exist: describing it raises."""
        __tracebackhide__ = True
        cause = (
            "describe answers from a cache, from metadata that outlives the records, or with an "
        )
        with refuses(StreamNotFoundError, f"describe {why}", cause=f"{cause}empty description"):
            await queue.describe(stream)
