"""Sends the events of many streams as the response to one request.

Design: docs/design/many-streams.md.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from starlette.types import Receive, Scope, Send

from streamq._errors import ClosedError, StreamqError
from streamq._events import StreamId
from streamq.access import Rights
from streamq.gateway._clients import Client
from streamq.gateway._frames import REVOKED_EVENT, encode_opening, encode_reconnect
from streamq.gateway._gateway import Gateway
from streamq.gateway._live_response import LiveResponse
from streamq.gateway._places import EventPlace
from streamq.gateway._revocations import REVOKED

from ._asked import Asked
from ._labels import with_ids, with_names
from ._prefix_streams import PrefixSearch, PrefixStreams
from ._rotation import Piece, PieceKind, Rotation
from ._stream_line import LineState, StreamLine, Surroundings

_SETTLED_SECONDS = 5.0
_STEP_STREAMS = 32
_MANY = "streams of a prefix"


class ManyStreams(LiveResponse):
    """Sends what streams have ready, in rotation, until all of them have ended.

    Args:
        gateway: As for :class:`LiveResponse`.
        asked: What the request asks for.
        streams: The streams that it names.
        searches: The prefixes that it names.
        client: Who asks.
        rights: As for :class:`LiveResponse`; for the streams that it names.
        found_rights: What it may do with those that prefixes find.
        held: What the client holds while the response lasts.
    """

    def __init__(
        self,
        gateway: Gateway,
        asked: Asked,
        streams: list[StreamId],
        searches: list[PrefixSearch],
        client: Client,
        rights: Rights,
        found_rights: Rights,
        held: ExitStack,
    ) -> None:
        about = streams[0] if streams else StreamId(rights.tenant, _MANY)
        super().__init__(gateway, about, rights=rights)
        self._token = asked.token
        self._held = held
        self._rotation: Rotation[StreamLine] = Rotation()
        self._around = Surroundings(
            gateway=gateway,
            client=client,
            rights=rights,
            found_rights=found_rights,
            rotation=self._rotation,
            token=asked.token,
            wait_seconds=asked.wait_seconds,
            last_attempt=asked.last_attempt,
            changed=self._note,
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._unfinished: set[StreamLine] = set()
        self._changed = asyncio.Event()
        self._closed: ClosedError | None = None
        self._named = [
            StreamLine(
                self._around, stream, asked.places.of(stream.name) or asked.start, is_named=True
            )
            for stream in streams
        ]
        self._is_moving = not isinstance(asked.start, EventPlace)
        self._prefixes = PrefixStreams(
            self._around,
            asked,
            searches,
            self._start,
            room=lambda: asked.most - len(self._unfinished),
        )
        self._has_prefixes = bool(asked.prefixes)

    async def settle(self) -> bool:
        """Begin to follow, and wait until it is known how the response begins.

        That is when one stream can be followed and each prefix was looked at once. With
        ``from=tail`` or ``last`` it takes the places of all streams: the first frame has them, so
        that a client that comes back does not begin at another tail. It takes 5 s at most.

        Returns:
            Whether there is anything to send; not if the client has the ends of all streams that
            there are.

        Raises:
            StreamqError: No stream can be followed, and the client has the end of none: the error
                of the first one. Or a prefix cannot be looked at, or the backend cannot be opened.

        Cancellation: the caller calls :meth:`aclose`.
        """
        most = await self._gateway.questions.most_of_client()
        self._around.opening = asyncio.Semaphore(max(most - 1, 1))
        for number, line in enumerate(self._named):
            self._start(line)
            if number % _STEP_STREAMS == 0:
                await asyncio.sleep(0)  # live events of others come first
        self._prefixes.join()
        try:
            async with asyncio.timeout(_SETTLED_SECONDS):
                while not self._is_settled():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return True
        if self._prefixes.failure is not None:
            raise self._prefixes.failure.with_traceback(None)
        if self._unfinished or self._has_prefixes:
            return True
        failures = [line.failure for line in self._named if line.failure is not None]
        if len(failures) == len(self._named):
            raise failures[0].with_traceback(None)
        return False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Follow no stream any more. Idempotent."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        self._leave()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, line: StreamLine) -> None:
        self._unfinished.add(line)
        task = asyncio.create_task(line.run(), name=f"streamq-line {line.asked}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _is_settled(self) -> bool:
        states = {line.state for line in self._named}
        prefixes = self._prefixes
        if prefixes.failure is not None:
            return True
        if self._is_moving:
            return LineState.OPENING not in states and prefixes.are_placed
        return prefixes.are_listed and (LineState.LIVE in states or LineState.OPENING not in states)

    def _note(self, line: StreamLine | None) -> None:
        """Note that the state of a stream has changed, or that a prefix was looked at."""
        if line is not None:
            if line.is_over:
                self._unfinished.discard(line)
            if isinstance(line.failure, ClosedError):
                self._closed = line.failure
            else:
                self._prefixes.note(line)
        self._changed.set()
        self._rotation.wake()

    @property
    def _is_ended(self) -> bool:
        is_over = not self._unfinished and not self._rotation
        return is_over and not self._has_prefixes and self._closed is None

    @property
    def _has_appeared(self) -> bool:
        return True  # each stream waits by itself

    async def _exists(self) -> bool:
        return True

    async def _read(self, max_wait: float) -> bytes:
        pieces = await self._rotation.take(max_wait)
        if self._closed is not None:
            raise self._closed.with_traceback(None)
        return b"".join(map(self._finished, pieces))

    def _finished(self, piece: Piece[StreamLine]) -> bytes:
        line, token = piece.source, self._token
        if piece.kind is PieceKind.EVENTS:
            assert line is not None
            if token is None:
                return with_names(piece.data, line.name)
            return with_ids(piece.data, line.name, line.asked.name, token)
        if piece.kind is PieceKind.PLACED and token is not None:
            return f"id: {token}\n".encode("ascii") + piece.data
        return piece.data

    def _note_sent(self) -> None:
        """Do nothing: the token is advanced by what is sent next, and without an await before."""

    def _opening_frames(self, expires_in: float | None) -> bytes:
        # Where streams begin at a tail, a client that comes back has to bring the id, though it may
        # have no places yet: what a prefix finds then is new.
        has_id = self._token is not None and (len(self._token) or self._is_moving)
        place = str(self._token) if has_id else None
        return encode_opening(self._options.retry_seconds, place, expires_in)

    def _goodbye_frame(self, reason: str) -> bytes:
        if reason == REVOKED:
            return REVOKED_EVENT
        return encode_reconnect(reason, None if self._token is None else str(self._token))

    def _is_reported(self, error: StreamqError) -> bool:
        return isinstance(error, ClosedError)

    def _leave(self) -> None:
        self._prefixes.leave()
        self._held.close()
