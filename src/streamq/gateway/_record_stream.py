"""Sends the stored records of a stream as the response to a request.

Design: docs/design/reading-over-http.md.
"""

from __future__ import annotations

from streamq._errors import StreamqError
from streamq._events import StreamId
from streamq.access import Rights

from ._frames import REVOKED_EVENT, encode_reconnect
from ._gateway import Gateway
from ._live_response import LiveResponse
from ._record_follower import RecordFollower
from ._record_frames import encode_opening_of_records
from ._revocations import REVOKED


class RecordStream(LiveResponse):
    """Sends records as they come. It does not end with the stream, whose ending is a record.

    Args:
        gateway: As for :class:`LiveResponse`.
        follower: Reads the records for this client; released when the response ends.
        asked: As for :class:`LiveResponse`; the follower may read another stream.
        wait_seconds: As for :class:`LiveResponse`.
        rights: As for :class:`LiveResponse`.
    """

    def __init__(
        self,
        gateway: Gateway,
        follower: RecordFollower,
        *,
        asked: StreamId,
        wait_seconds: float = 0.0,
        rights: Rights | None = None,
    ) -> None:
        super().__init__(gateway, asked, wait_seconds=wait_seconds, rights=rights)
        self._follower = follower

    @property
    def _is_ended(self) -> bool:
        return False

    @property
    def _has_appeared(self) -> bool:
        return self._follower.has_appeared

    async def _exists(self) -> bool:
        return await self._gateway.records.exists(self._follower)

    async def _read(self, max_wait: float) -> bytes:
        return await self._follower.read(max_wait)

    def _note_sent(self) -> None:
        self._follower.note_sent()

    def _opening_frames(self, expires_in: float | None) -> bytes:
        options = self._options
        return encode_opening_of_records(
            options.retry_seconds, options.heartbeat_seconds, expires_in
        )

    def _goodbye_frame(self, reason: str) -> bytes:
        if reason == REVOKED:
            return REVOKED_EVENT
        return encode_reconnect(reason, self._follower.position)

    def _is_reported(self, error: StreamqError) -> bool:
        return False

    def _leave(self) -> None:
        self._gateway.records.leave(self._follower)
