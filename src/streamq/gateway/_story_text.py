"""Sends the text of a stream's last attempt as the response to a request, while it is read.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import base64
import codecs
import json
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from streamq._errors import StreamqError, TrimmedError
from streamq._events import StreamId
from streamq.access import Rights

from ._frames import frame_parts
from ._gateway import Gateway
from ._live_response import LiveResponse
from ._log_limit import gateway_logger
from ._throttled import AnyFollower

_logger = gateway_logger()

STORY_HEADERS = ("Streamq-State", "Streamq-Attempt", "Streamq-Offset", "Streamq-After")
"""Headers that say where the stream stood; pages of other origins may read them."""


@dataclass(frozen=True, slots=True)
class StoryStatus:
    """Where a stream stood when its text was asked for.

    Attributes:
        state: OPEN, END, ERROR or CANCELLED.
        attempt: The newest attempt.
        offset: Offset of the newest event.
        after: Its place, from which a client goes on.
    """

    state: str
    attempt: int
    offset: int
    after: str

    def headers(self) -> dict[str, str]:
        """Return the headers of the response."""
        values = (self.state, str(self.attempt), str(self.offset), self.after)
        return {**dict(zip(STORY_HEADERS, values, strict=True)), "Vary": "Accept"}


class ChunkText:
    """Turns the frames of chunks into text: text as it is, bytes as UTF-8, the rest as JSON lines.

    Args:
        stream: The stream, for messages.
        newest: Offset of the last event that is used.
    """

    def __init__(self, stream: StreamId, newest: int) -> None:
        self.newest = newest
        """Offset of the last event that is used."""
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_in_line = False

    def add(self, frames: bytes) -> bytes:
        """Return the text of whole frames.

        Raises:
            TrimmedError: Events are no longer stored: the text would lack a part.
        """
        parts: list[str] = []
        for place, kind, data in frame_parts(frames):
            offset = int(place.partition(b"@")[0])
            if kind == b"gap":
                oldest = offset + 1
                raise TrimmedError(
                    f"the text of stream {self._stream} is not whole: events before {oldest} are "
                    "no longer stored; as=json has what is left",
                    oldest=oldest,
                    stream=str(self._stream),
                )
            if kind == b"chunk" and offset <= self.newest:
                parts.append(self._text(json.loads(data)))
        return "".join(parts).encode()

    def end(self) -> bytes:
        """Return what stands for a character that is not complete, often nothing."""
        return self._decoder.decode(b"", final=True).encode()

    def _text(self, chunk: dict[str, object]) -> str:
        value = chunk.get("value")
        if isinstance(value, str) and "nonfinite" not in chunk:
            text = self._decoder.decode(value.encode())
        elif "base64" in chunk and "undecoded" not in chunk:
            text = self._decoder.decode(base64.b64decode(str(chunk["base64"])))
        else:
            shown = value if "value" in chunk else {"undecoded": chunk.get("undecoded")}
            line = json.dumps(shown, ensure_ascii=False, separators=(",", ":"))
            text = "\n" * self._is_in_line + line + "\n"
        if text:
            self._is_in_line = not text.endswith("\n")
        return text


class StoryText(LiveResponse):
    """Sends the text up to the newest event of the moment when it was asked for.

    The response ends in good order only if the text is whole. After an error, the maximum age or a
    stop the connection is cut, which every client reports as an error.

    Args:
        gateway: As for :class:`LiveResponse`.
        follower: Reads the last attempt for this client; released when the response ends. ``None``
            if there is nothing to read.
        asked: As for :class:`LiveResponse`.
        status: Where the stream stood.
        text: Makes the text; it has been given what came first.
        first: The text of that.
        rights: As for :class:`LiveResponse`.
    """

    media_type = "text/plain"
    _heartbeat = b""

    def __init__(
        self,
        gateway: Gateway,
        follower: AnyFollower,
        *,
        asked: StreamId,
        status: StoryStatus,
        text: ChunkText,
        first: bytes,
        rights: Rights | None = None,
    ) -> None:
        super().__init__(gateway, asked, rights=rights)
        self.headers.update(status.headers())
        self._follower = follower
        self._text = text
        self._first = first
        self._is_whole = False

    @property
    def _is_ended(self) -> bool:
        return self._follower.is_ended or self._follower.offset >= self._text.newest

    @property
    def _has_appeared(self) -> bool:
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except _IncompleteError:  # the server cuts the connection, since the response has no end
            _logger.info("the text of %s was cut before its end", self._asked)

    async def _serve(self, receive: Receive, send: Send) -> None:
        await super()._serve(receive, send)
        if not self._is_whole:
            raise _IncompleteError

    async def _write_all(self, send: Send) -> None:
        try:
            await self._write(send, self._first)
            await self._write_frames(send)
            if self._is_ended:
                await self._write(send, self._text.end())
                self._is_whole = True
        except StreamqError as exc:
            if not self._is_reported(exc):
                self._gateway.failures.log(self._asked, exc)

    async def _exists(self) -> bool:
        return True

    async def _read(self, max_wait: float) -> bytes:
        return self._text.add(await self._follower.read(max_wait))

    def _note_sent(self) -> None:
        pass

    def _opening_frames(self, expires_in: float | None) -> bytes:
        return b""

    def _goodbye_frame(self, reason: str) -> bytes:
        return b""

    def _is_reported(self, error: StreamqError) -> bool:
        return error is self._follower.hub.failure

    def _leave(self) -> None:
        self._gateway.leave(self._follower)


class _IncompleteError(Exception):
    pass
