"""Sabotaged drivers that take appends to several streams for one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streamq.driver import BackendUnavailableError, StreamAppend, StreamqError

from .server import SoundQueue, checks


class _Together(SoundQueue):
    """Stores for many streams at once, soundly."""

    async def append_many(self, appends: Sequence[StreamAppend]) -> Sequence[StreamqError | None]:
        self.check_open()
        return await super().append_many(appends)


class FailsAllForOne(_Together):
    """Reports the error of one append as that of all."""

    caught_by = checks("fenced_append_leaves_those_beside_it_alone")

    async def append_many(self, appends: Sequence[StreamAppend]) -> Sequence[StreamqError | None]:
        outcomes = await super().append_many(appends)
        failed = [each for each in outcomes if each is not None]
        return [failed[0]] * len(appends) if failed else outcomes


class StoresUnderNextName(_Together):
    """Stores each append of several under the name of the one after it."""

    caught_by = checks("""
        appends_to_many_streams_are_stored_each_in_order
        fenced_append_leaves_those_beside_it_alone
        many_appends_whose_connection_breaks_can_be_repeated
    """)

    async def append_many(self, appends: Sequence[StreamAppend]) -> Sequence[StreamqError | None]:
        names = [each.stream for each in (*appends[1:], *appends[:1])]
        moved = [
            StreamAppend(name, each.entries, each.ttl)
            for name, each in zip(names, appends, strict=True)
        ]
        return await super().append_many(moved)


class ForgetsLastWhenCancelled(_Together):
    """Answers a repeated call, after a cancelled one, as if that had stored the last append."""

    caught_by = checks("many_appends_can_be_cancelled_at_any_await")
    _cancelled: object = None

    async def append_many(self, appends: Sequence[StreamAppend]) -> Sequence[StreamqError | None]:
        chosen = [(each.stream, tuple(each.entries)) for each in appends]
        is_repeated, self._cancelled = self._cancelled == chosen, None
        try:
            done = await super().append_many(appends[:-1] if is_repeated else appends)
        except asyncio.CancelledError:
            self._cancelled = chosen
            raise
        return [*done, None] if is_repeated else done


class TakesLossForSuccess(_Together):
    """Reports an append as stored whose connection was lost."""

    caught_by = checks("""
        many_appends_whose_connection_breaks_can_be_repeated
        reader_notices_a_restart_only_if_records_were_lost
        stream_is_delivered_once_through_dropped_connections
    """)

    async def append_many(self, appends: Sequence[StreamAppend]) -> Sequence[StreamqError | None]:
        outcomes = await super().append_many(appends)
        return [None if isinstance(each, BackendUnavailableError) else each for each in outcomes]


class AppendsManyWhenClosed(SoundQueue):
    """Forgets that it is closed when several appends come together."""

    caught_by = checks("many_appends_of_a_closed_queue_are_refused")

    async def append_many(self, appends: Sequence[StreamAppend]) -> Sequence[StreamqError | None]:
        return [None] * len(appends) if self.is_closed else await super().append_many(appends)
