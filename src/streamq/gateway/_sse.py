"""Sends the events of a stream as the response to a request, as Server-Sent Events.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from streamq._errors import StreamqError
from streamq._events import StreamId
from streamq.access import Rights

from ._frames import REVOKED_EVENT, encode_opening, encode_reconnect
from ._gateway import Gateway
from ._live_response import LiveResponse
from ._places import EventPlace
from ._revocations import REVOKED
from ._throttled import AnyFollower


class EventStream(LiveResponse):
    """Sends a follower's frames until the seal, an error, the maximum age or a disconnect.

    Args:
        gateway: As for :class:`LiveResponse`.
        follower: Reads the stream for this client; released when the response ends.
        asked: As for :class:`LiveResponse`; the follower may read another stream.
        opening: Place to send to the client at once, see :func:`encode_opening`.
        wait_seconds: As for :class:`LiveResponse`.
        rights: As for :class:`LiveResponse`.
    """

    def __init__(
        self,
        gateway: Gateway,
        follower: AnyFollower,
        *,
        asked: StreamId,
        opening: EventPlace | None = None,
        wait_seconds: float = 0.0,
        rights: Rights | None = None,
    ) -> None:
        super().__init__(gateway, asked, wait_seconds=wait_seconds, rights=rights)
        self._follower = follower
        self._opening = opening
        self._sent = follower.offset  # less than its offset if stopped before what it read was sent

    @property
    def _is_ended(self) -> bool:
        return self._follower.is_ended

    @property
    def _has_appeared(self) -> bool:
        return self._follower.hub.has_appeared

    async def _exists(self) -> bool:
        follower = self._follower
        async with self._gateway.questions.ask(follower.client) as queue:
            return (await follower.hub.refresh(queue)).exists

    async def _read(self, max_wait: float) -> bytes:
        return await self._follower.read(max_wait)

    def _note_sent(self) -> None:
        self._sent = self._follower.offset

    def _opening_frames(self, expires_in: float | None) -> bytes:
        opening = None if self._opening is None else str(self._opening)
        return encode_opening(self._options.retry_seconds, opening, expires_in)

    def _goodbye_frame(self, reason: str) -> bytes:
        if reason == REVOKED:
            return REVOKED_EVENT
        follower, sent = self._follower, self._sent
        is_sent = follower.offset == sent
        place = follower.place if is_sent else EventPlace(sent, follower.hub.epochs.at(sent))
        return encode_reconnect(reason, str(place))

    def _is_reported(self, error: StreamqError) -> bool:
        return error is self._follower.hub.failure

    def _leave(self) -> None:
        self._gateway.leave(self._follower)
