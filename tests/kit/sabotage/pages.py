"""Sabotaged drivers that take a limit of the backend for the end, or bounds not to the letter."""

from __future__ import annotations

from collections.abc import Sequence

from streamq.driver import Stored, StreamId, StreamInfo

from .reading import _Reading
from .server import SoundQueue, checks


class StopsAtAPageOfRecords(_Reading):
    """Returns what the server returns at once, at most 512 records."""

    caught_by = checks("read_returns_more_than_a_page_of_the_server")

    def before(self, bounds: dict[str, float]) -> None:
        bounds["max_records"] = min(bounds["max_records"], 512)


class StopsAtAPageOfBytes(_Reading):
    """Returns what the server returns at once, at most one MiB."""

    caught_by = checks("read_returns_more_bytes_than_a_page_of_the_server")

    def before(self, bounds: dict[str, float]) -> None:
        bounds["max_bytes"] = min(bounds["max_bytes"], 2**20)


class DescribesAPage(SoundQueue):
    """Returns at most fifty of the newest records."""

    caught_by = checks("describe_and_delete_go_beyond_a_page_of_the_server")

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        return await super().describe(stream, last=min(last, 50))


class StopsAtTheBoundOfBytes(_Reading):
    """Takes a record that fills the bound exactly for one that does not fit."""

    caught_by = checks("""
        bounds_of_a_read_hold_to_the_record_and_to_the_byte
        read_returns_more_bytes_than_a_page_of_the_server
        read_returns_more_than_a_page_of_the_server
    """)

    def before(self, bounds: dict[str, float]) -> None:
        bounds["max_bytes"] -= 1


class ReturnsOneRecordLess(_Reading):
    """Requests one record more than it returns, to know whether there are more."""

    caught_by = checks("""
        bounds_of_a_read_hold_to_the_record_and_to_the_byte
        read_returns_more_than_a_page_of_the_server
        reads_of_one_connection_do_not_disturb_each_other
        trimmed_records_are_gone_for_connections_that_have_read_them
    """)

    def before(self, bounds: dict[str, float]) -> None:
        bounds["max_records"] = max(1, bounds["max_records"] - 1)


class KeepsBoundsInTheConnection(SoundQueue):
    """Keeps the bounds of the latest read in the connection, where the next one changes them."""

    caught_by = checks("reads_of_one_connection_do_not_disturb_each_other")

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        self._most = max_records
        await self.link()
        return await super().read(
            stream, after, max_records=self._most, max_bytes=max_bytes, max_wait=max_wait
        )
