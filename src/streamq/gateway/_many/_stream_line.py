"""Follows one stream for a connection of many, and goes on after what may pass.

Design: docs/design/many-streams.md.
"""

from __future__ import annotations

import asyncio
import enum
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from streamq._errors import ClosedError, CursorError, StreamNotFoundError, StreamqError
from streamq._events import StreamId
from streamq.access import Action, Rights
from streamq.gateway._authority import visible_stream
from streamq.gateway._clients import Client
from streamq.gateway._error_responses import Problem
from streamq.gateway._gateway import Gateway
from streamq.gateway._log_limit import gateway_logger
from streamq.gateway._places import EventPlace, NamedPlace
from streamq.gateway._throttled import AnyFollower

from ._labels import error_frame, name_of, stream_frame
from ._places_token import PlacesToken
from ._rotation import PieceKind, Rotation

_logger = gateway_logger()

_READ_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 30.0
_MOST_DOUBLINGS = 5
_ERRORS_OF_OURS = 500


class LineState(enum.Enum):
    """How far a stream of a connection has got."""

    OPENING = "opening"
    """It is not known yet where it begins."""
    LIVE = "live"
    """It is followed or awaited, or will be tried again."""
    ENDED = "ended"
    """The client has all of it, its end included."""
    FAILED = "failed"
    """This connection sends nothing more of it."""


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What the streams of one connection share.

    Attributes:
        gateway: Opens streams.
        client: Who reads.
        rights: What the client may do with the streams that it named.
        found_rights: What it may do with those that a prefix found.
        rotation: Takes what is to be sent.
        token: The places of all streams, which is the id of events; ``None`` without ids.
        wait_seconds: How long a named stream that does not exist may take to appear; ``None`` if
            it has to exist.
        last_attempt: Whether attempts that a stored reset has voided are left out.
        changed: Called with a stream whenever its state has changed, and without one when a prefix
            was looked at.
        opening: Bounds how many streams are opened at once, so that other requests of the client
            have their turn among its questions to the backend.
    """

    gateway: Gateway
    client: Client
    rights: Rights
    found_rights: Rights
    rotation: Rotation[StreamLine]
    token: PlacesToken | None
    wait_seconds: float | None
    last_attempt: bool
    changed: Callable[[StreamLine | None], None]
    opening: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))


class StreamLine:
    """One stream of a connection.

    Args:
        around: What it shares with the others.
        asked: The stream by the name that the client knows.
        start: Where it begins.
        is_named: Whether the client named it, so that it hears what becomes of it in any case. Of
            what a prefix found, a stream that is gone when it is opened was never there, one that
            the client has to its end is not mentioned, and one that began again is a new one.
        is_new: Whether it has appeared since the connection began.
    """

    def __init__(
        self,
        around: Surroundings,
        asked: StreamId,
        start: EventPlace | NamedPlace,
        *,
        is_named: bool,
        is_new: bool = False,
    ) -> None:
        self.asked = asked
        """The stream by the name that the client knows."""
        self.name = name_of(asked.name)
        """That name as JSON."""
        self.is_named = is_named
        """Whether the client named it."""
        self.state = LineState.OPENING
        """How far it has got."""
        self.failure: StreamqError | None = None
        """Why nothing more of it is sent."""
        self._around = around
        self._start = start
        self._is_new = is_new
        self._announced = ""
        self._reported = ""
        self._failures = 0
        self._appear_by = time.monotonic() + (around.wait_seconds or 0.0)

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state in (LineState.ENDED, LineState.FAILED)

    @property
    def place(self) -> EventPlace:
        """The last event that was handed over, or where the events begin, if that is known."""
        return self._start if isinstance(self._start, EventPlace) else EventPlace(0)

    async def run(self) -> None:
        """Follow the stream until it has ended, or has failed for good.

        Cancellation: leaves nothing behind.
        """
        try:
            while not await self._follow():
                if self._failures:
                    await self._rest()
        except Exception as exc:  # reported to the client; the log has the traceback
            _logger.exception("following %s stopped unexpectedly", self.asked)
            error = StreamqError(f"unexpected {type(exc).__name__}", stream=str(self.asked))
            await self._fail(error)

    async def _follow(self) -> bool:
        """Follow the stream once; return whether that was all."""
        follower: AnyFollower | None = None
        try:
            follower = await self._open()
            if follower is None:
                self._become(LineState.ENDED)
                if self.is_named:
                    await self._announce("ENDED")
            else:
                await self._deliver(follower)
                self._become(LineState.ENDED)
            return True
        except StreamqError as exc:
            if isinstance(exc, CursorError) and self._begin_anew():
                return False
            is_logged = follower is not None and exc is follower.hub.failure
            if not is_logged and Problem.of(exc).status >= _ERRORS_OF_OURS:
                self._around.gateway.failures.log(self.asked, exc)
            return await self._fail(exc)
        finally:
            if follower is not None:
                self._around.gateway.leave(follower)

    async def _rest(self) -> None:
        doublings = min(self._failures - 1, _MOST_DOUBLINGS)
        pause = self._around.gateway.options.retry_seconds * 2**doublings
        await asyncio.sleep(min(pause, _LONGEST_PAUSE_SECONDS) * random.uniform(0.8, 1.0))

    def _begin_anew(self) -> bool:
        """Begin with the stream that follows another one of its name; return whether it may."""
        if self.is_named or self.place == EventPlace(0):
            return False
        self._announced, self._is_new, self._start = "", True, EventPlace(0)
        return True

    async def _open(self) -> AnyFollower | None:
        around = self._around
        rights = around.rights if self.is_named else around.found_rights
        stream = visible_stream(rights, Action.READ, self.asked)
        async with around.opening:
            follower = await around.gateway.follow(
                stream,
                self._start,
                may_be_missing=around.wait_seconds is not None and self.is_named,
                client=around.client,
                last_attempt=around.last_attempt,
                is_one_of_many=True,
            )
        if follower is not None:
            if around.token is not None and not isinstance(self._start, EventPlace):
                # A client that comes back must not begin at another tail.
                around.token.set(self.asked.name, follower.place)
            self._start = follower.place
        return follower

    async def _deliver(self, follower: AnyFollower) -> None:
        """Hand over all events until the end.

        Raises:
            StreamqError: The stream cannot be read on, or did not appear in time.
        """
        rotation, hub = self._around.rotation, follower.hub
        self._become(LineState.LIVE)
        await self._announce("OPEN" if hub.has_appeared else "ABSENT")
        while not follower.is_ended:
            wait = _READ_SECONDS
            if hub.has_appeared:
                await self._announce("OPEN")
            else:
                wait = self._appear_by - time.monotonic()
                if wait <= 0:
                    await self._check_exists(follower)
                    wait = 0.0
            await rotation.room()
            data = await follower.read(wait)
            if not data:
                continue
            await self._announce("OPEN")
            place = follower.place
            await rotation.put(self, data, PieceKind.EVENTS)
            self._start = place
            self._failures, self._reported = 0, ""

    async def _check_exists(self, follower: AnyFollower) -> None:
        async with self._around.gateway.questions.ask(follower.client) as queue:
            if (await follower.hub.refresh(queue)).exists:
                return
        raise StreamNotFoundError("none appeared", stream=str(self.asked))

    async def _announce(self, state: str) -> None:
        """Say once that the stream is there, and once before that it is not."""
        frame = self._announcement(state)
        if frame:
            await self._around.rotation.put(self, frame, PieceKind.PLACED)

    def _announcement(self, state: str) -> bytes:
        if self._announced not in ("", "ABSENT") or self._announced == state:
            return b""
        is_new = self._is_new or self._announced == "ABSENT"
        self._announced = state
        return stream_frame(self.name, str(self.place), state, is_new=is_new)

    async def _fail(self, error: StreamqError) -> bool:
        """Report a failure, once while it lasts; return whether it is final."""
        problem = Problem.of(self._public(error))
        is_final = not problem.retryable or isinstance(error, ClosedError)
        self.failure = error if is_final else None
        self._failures += 1
        frame = b""
        is_gone = isinstance(error, StreamNotFoundError)
        if is_gone and not self._announced and self.is_named:
            frame = self._announcement("ABSENT")
        is_known = self.is_named or bool(self._announced) or not is_gone
        if is_known and (is_final or problem.code != self._reported):
            self._reported = problem.code
            frame += error_frame("stream", self.asked.name, problem, retryable=not is_final)
        self._become(LineState.FAILED if is_final else LineState.LIVE)
        if frame and not isinstance(error, ClosedError):  # the whole connection ends with that one
            kind = PieceKind.PLACED if frame.startswith(b"event: stream") else PieceKind.PLAIN
            await self._around.rotation.put(self, frame, kind)
        return is_final

    def _public(self, error: StreamqError) -> StreamqError:
        """Return an error that names only the stream that was asked for, and no internals."""
        if not isinstance(error, StreamNotFoundError):
            return error
        text, wait_seconds = f"there is no stream {self.asked}", self._around.wait_seconds
        if self._announced == "OPEN":
            text = f"stream {self.asked} is gone: it was deleted or has expired"
        elif self._announced == "ABSENT" and wait_seconds is not None:
            text += f", and none appeared within {wait_seconds:g} s"
        return StreamNotFoundError(text, stream=str(self.asked))

    def _become(self, state: LineState) -> None:
        self.state = state
        self._around.changed(self)
