"""Appends entries: those of all streams that wait at the same time, in one transaction.

All appends of the process share one connection. One that finds it idle is sent at once. Those that
come while the server commits wait for each other and are sent together, each stream once: the next
commit, which waits for the disk once, is that of all of them. If the server refuses such a group,
each stream is sent by itself: what is wrong with one of them, such as a lock that an operator
holds, then fails no other one.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

import psycopg

from streamq.driver import Entry, FencedError, StreamId, new_entries

from ._errors import BACKEND, speaks_of_server
from ._naming import Names, names_of, token
from .requests._connection import Connection
from .requests._connection_group import SharedConnection
from .requests._statements import Statements

_GROUP_STREAMS = 500
_GROUP_BYTES = 4 * 2**20
_PAYLOAD_TOKENS = 800
"""Tokens of eight characters in one notification, which may have 7,999 bytes."""


@dataclass(slots=True, eq=False)
class _Append:
    """One call that waits for its turn.

    Attributes:
        stream: Which stream.
        names: Its columns.
        entries: Ascending, and not empty.
        ttl: Time to live, in seconds.
        size: Bytes of data.
        done: The epoch that fences it off, or 0.
    """

    stream: StreamId
    names: Names
    entries: Sequence[Entry]
    ttl: float
    size: int
    done: asyncio.Future[int] = field(default_factory=asyncio.Future)


class Appender:
    """Appends for all streams of one queue.

    Args:
        connection: The connection for appends.
        statements: The statements for the schema.
        ttl: Time to live of a stream after its last append.
        how_to_commit: The setting ``synchronous_commit``.
        lock_ms: Longest time to wait for another session that has locked a stream.
        on_appended: Called after appends.
    """

    def __init__(
        self,
        connection: SharedConnection,
        statements: Statements,
        *,
        ttl: timedelta,
        how_to_commit: str,
        lock_ms: int,
        on_appended: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._statements = statements
        self._ttl = ttl
        self._how_to_commit = how_to_commit
        self._lock_ms = lock_ms
        self._on_appended = on_appended
        self._waiting: deque[_Append] = deque()
        self._sending: asyncio.Task[None] | None = None

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None = None
    ) -> None:
        """Store entries; as :meth:`streamq.driver.ChunkQueue.append`, with psycopg's errors."""
        if not entries:
            return
        # What the entries themselves rule out need not be sent. The rest has ascending places.
        fresh = new_entries(entries, (0, -1), backend=BACKEND, stream=stream)
        if not fresh:
            return
        seconds = (self._ttl if ttl is None else ttl).total_seconds()
        size = sum(len(each.data) for each in fresh)
        append = _Append(stream, names_of(stream), fresh, seconds, size)
        self._waiting.append(append)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all(), name="streamq-postgres-appends")
        epoch = await append.done
        if epoch:
            raise FencedError(
                f"stream {stream} has been taken over: it holds records of epoch {epoch}, this "
                f"writer has {fresh[0].epoch} and must stop",
                backend=BACKEND,
                stream=str(stream),
            )

    async def gone(self) -> None:
        """Wait until nothing is being sent, after the connection was closed."""
        if self._sending is not None:
            await asyncio.wait({self._sending})

    async def _send_all(self) -> None:
        while self._waiting:
            group = self._next_group()
            try:
                await self._connection.run_here(partial(self._send, group))
            except Exception as exc:  # noqa: BLE001 - raised by the calls that wait
                for append in group:
                    if not append.done.done():
                        append.done.set_exception(exc)
                        append.done.exception()  # seen, also if its caller was cancelled
            else:
                self._on_appended()

    def _next_group(self) -> list[_Append]:
        """Take what is sent together: each stream once, in the order of the locks."""
        group: dict[Names, _Append] = {}
        later: list[_Append] = []
        size = 0
        while self._waiting and len(group) < _GROUP_STREAMS:
            append = self._waiting.popleft()
            if append.done.done():
                continue  # its caller was cancelled
            if append.names in group or (group and size + append.size > _GROUP_BYTES):
                later.append(append)
                if append.names not in group:
                    break
                continue
            group[append.names] = append
            size += append.size
        self._waiting.extendleft(reversed(later))
        return sorted(group.values(), key=_names_of)

    async def _send(self, group: list[_Append], connection: Connection) -> None:
        if not group:
            return
        try:
            _settle(group, await self._call(group, connection))
            return
        except psycopg.Error as exc:
            if len(group) == 1 or not connection.is_open or speaks_of_server(exc):
                raise
        for append in group:
            try:
                _settle([append], await self._call([append], connection))
            except psycopg.Error as exc:
                if not append.done.done():
                    append.done.set_exception(exc)
                    append.done.exception()

    async def _call(self, group: list[_Append], connection: Connection) -> list[int]:
        """Send appends, and return their outcomes."""
        # Where statements of one connection have several sessions, each brings its settings.
        lock_ms = self._lock_ms if connection.server.is_pooled else 0
        if len(group) == 1 and len(group[0].entries) == 1:
            (append,) = group
            (entry,) = append.entries
            values: list[object] = [
                *append.names,
                *(append.ttl, entry.epoch, entry.index, entry.data),
                *(self._how_to_commit, lock_ms, token(append.stream)),
            ]
            ((outcomes,),) = await connection.run(self._statements.append_one, values)
        else:
            values = [*_arrays(group), self._how_to_commit, lock_ms, _payloads(group)]
            ((outcomes,),) = await connection.run(self._statements.append, values)
        return outcomes  # type: ignore[no-any-return]


def _arrays(group: list[_Append]) -> list[object]:
    owned = [(at, entry) for at, each in enumerate(group, 1) for entry in each.entries]
    return [
        [each.names[0] for each in group],
        [each.names[1] for each in group],
        [each.ttl for each in group],
        [each.entries[0].epoch for each in group],
        [each.entries[0].index for each in group],
        [each.entries[-1].epoch for each in group],
        [each.entries[-1].index for each in group],
        [len(each.entries) for each in group],
        [each.size for each in group],
        [at for at, _ in owned],
        [entry.epoch for _, entry in owned],
        [entry.index for _, entry in owned],
        [entry.data for _, entry in owned],
    ]


def _payloads(group: list[_Append]) -> list[str]:
    tokens = [token(each.stream) for each in group]
    starts = range(0, len(tokens), _PAYLOAD_TOKENS)
    return [",".join(tokens[at : at + _PAYLOAD_TOKENS]) for at in starts]


def _settle(group: list[_Append], outcomes: list[int]) -> None:
    for append, outcome in zip(group, outcomes, strict=True):
        if not append.done.done():
            append.done.set_result(outcome)


def _names_of(append: _Append) -> Names:
    return append.names
