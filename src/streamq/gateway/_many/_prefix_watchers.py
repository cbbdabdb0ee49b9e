"""Looks for the streams of prefixes, once for all connections of the process.

Design: docs/design/many-streams.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from streamq._errors import StreamqError
from streamq.calling import _calls as calling
from streamq.driver import StreamInfo
from streamq.gateway._clients import Client
from streamq.gateway._log_limit import gateway_logger
from streamq.gateway._options import GatewayOptions
from streamq.gateway._questions import Questions

_logger = gateway_logger()

MOST_FOUND = 10_000
"""Most streams of one prefix that are looked at."""

_BRIEF_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 30.0
_COST = 10  # a look takes at most this part of the time
_WATCHERS = "prefix watchers"


@dataclass(frozen=True, slots=True)
class Found:
    """What a look at a prefix has found.

    Attributes:
        names: All streams, the most recent ones first.
        added: Those that were not there before.
        removed: Those that are not there any more.
        is_complete: Whether these are all; not if there are more than :data:`MOST_FOUND`.
        began: When the look began, by ``time.monotonic``.
    """

    names: dict[str, None]
    added: list[str]
    removed: list[str]
    is_complete: bool
    began: float


class PrefixListener(Protocol):
    """A connection that follows the streams of a prefix."""

    def found(self, prefix: str, found: Found, *, is_first: bool) -> None:
        """Take what a look has found that began after the connection had joined."""

    def failed(self, prefix: str, error: StreamqError) -> None:
        """Take note that looks fail; called once until one succeeds."""


class PrefixWatchers:
    """The watchers of one gateway: one for each tenant and prefix that a connection follows.

    Args:
        questions: Asks the backend.
        options: How often.
        own: Has the gateway wait for a task when it is closed.
    """

    def __init__(
        self,
        questions: Questions,
        options: GatewayOptions,
        own: Callable[[asyncio.Task[Any]], None],
    ) -> None:
        self._questions = questions
        self._options = options
        self._own = own
        self._watchers: dict[tuple[str, str], PrefixWatcher] = {}

    def __len__(self) -> int:
        return len(self._watchers)

    def join(self, tenant: str, prefix: str, listener: PrefixListener) -> None:
        """Begin to report to a listener; the first look for it begins at once, or soon."""
        watcher = self._watchers.get((tenant, prefix))
        if watcher is None:
            watcher = PrefixWatcher(tenant, prefix, self._questions, self._options)
            self._watchers[tenant, prefix] = watcher
        watcher.add(listener)
        if watcher.task is None:
            name = f"streamq-prefix {tenant}/{prefix[:60]}"
            watcher.task = asyncio.create_task(watcher.run(), name=name)
            self._own(watcher.task)

    def leave(self, tenant: str, prefix: str, listener: PrefixListener) -> None:
        """Report to a listener no longer; a watcher ends with its last one. Idempotent."""
        watcher = self._watchers.get((tenant, prefix))
        if watcher is not None and watcher.remove(listener):
            del self._watchers[tenant, prefix]

    async def aclose(self) -> None:
        """Stop looking. Idempotent."""
        watchers, self._watchers = list(self._watchers.values()), {}
        tasks = [each.task for each in watchers if each.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class PrefixWatcher:
    """Lists the streams of one prefix again and again, and reports what has changed.

    Args:
        tenant: Whose streams.
        prefix: What their names begin with.
        questions: Asks the backend.
        options: How often.
    """

    def __init__(
        self, tenant: str, prefix: str, questions: Questions, options: GatewayOptions
    ) -> None:
        self.task: asyncio.Task[None] | None = None
        """Looks; made and cancelled by the owner."""
        self._tenant = tenant
        self._prefix = prefix
        self._questions = questions
        self._options = options
        self._client = Client(_WATCHERS, tenant)
        self._interval = _LONGEST_PAUSE_SECONDS
        self._listeners: set[PrefixListener] = set()
        self._joined: set[PrefixListener] = set()
        self._told: set[PrefixListener] = set()  # that looks fail
        self._names: dict[str, None] = {}
        self._asked = asyncio.Event()
        self._failures = 0

    def add(self, listener: PrefixListener) -> None:
        """Report to a listener from the next look on."""
        self._joined.add(listener)
        self._asked.set()

    def remove(self, listener: PrefixListener) -> bool:
        """Report to it no longer; end with the last one, and return whether it was that."""
        for listeners in (self._joined, self._listeners, self._told):
            listeners.discard(listener)
        if self._joined or self._listeners:
            return False
        if self.task is not None:
            self.task.cancel()
        return True

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._asked.clear()
            joined, self._joined = self._joined, set()
            self._listeners |= joined
            began = time.monotonic()
            try:
                found, is_complete = await self._look()
            except StreamqError as exc:
                self._fail(exc, joined)
            except Exception as exc:  # the log has the traceback
                _logger.exception("looking for streams of %s stopped unexpectedly", self._tenant)
                self._fail(StreamqError(f"unexpected {type(exc).__name__}"), joined)
            else:
                self._failures = 0
                self._told.clear()
                self._report(found, joined, began, is_complete=is_complete)
            await self._pause(time.monotonic() - began)

    async def _look(self) -> tuple[dict[str, None], bool]:
        """Return the names that are there, and whether these are all."""
        infos: list[StreamInfo] = []
        async with self._questions.ask(self._client, is_list=True) as queue:
            self._interval = self._options.looks_every(queue.capabilities)
            listed = calling.streams(queue, self._tenant, self._prefix)
            async with contextlib.aclosing(listed):
                async for info in listed:
                    infos.append(info)
                    if len(infos) > MOST_FOUND:
                        break
        is_complete = len(infos) <= MOST_FOUND
        # As in a list: what expires last is the most recent.
        infos.sort(key=lambda info: (info.expires_in is None, info.expires_in), reverse=True)
        return {info.stream.name: None for info in infos[:MOST_FOUND]}, is_complete

    def _report(
        self,
        names: dict[str, None],
        joined: set[PrefixListener],
        began: float,
        *,
        is_complete: bool,
    ) -> None:
        before, self._names = self._names, names
        added = [name for name in names if name not in before]
        # Where not all are seen, one that is not among those seen need not be gone.
        removed = [name for name in before if name not in names] if is_complete else []
        found = Found(names, added, removed, is_complete, began)
        for listener in list(self._listeners):
            listener.found(self._prefix, found, is_first=listener in joined)

    def _fail(self, error: StreamqError, joined: set[PrefixListener]) -> None:
        self._failures += 1
        if self._failures == 1:
            _logger.warning("the streams of a prefix cannot be listed: %s: %s", error.code, error)
        for listener in self._listeners - self._told:
            self._told.add(listener)
            listener.failed(self._prefix, error)
        self._joined |= joined & self._listeners  # they have seen nothing yet

    async def _pause(self, took: float) -> None:
        """Wait until the next look is due; a connection that joins does not wait that long."""
        brief = max(_BRIEF_SECONDS, 2 * took)
        await asyncio.sleep(brief)
        if self._failures:
            pause = min(self._interval * 2 ** min(self._failures, 8), _LONGEST_PAUSE_SECONDS)
        else:
            pause = max(self._interval, _COST * took)
        pause = pause * random.uniform(0.9, 1.0) - brief
        if pause > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._asked.wait()
