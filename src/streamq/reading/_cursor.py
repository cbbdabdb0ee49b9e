"""Encodes a place in a stream as an opaque, URL-safe token that any process can use later.

Design: docs/design/reading.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
import zlib
from dataclasses import dataclass

from streamq._errors import CursorError
from streamq._events import StreamId
from streamq.driver import START

_HEAD = struct.Struct(">B8sQQQQ")
_PLAIN, _BASED = 1, 2
_BASE = struct.Struct(">q")
_CRC_BYTES = 4


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of delivery in a stream: everything needed to judge the next record.

    Attributes:
        epoch: Newest epoch seen, 0 before the first.
        attempt: Its dense number, 0 before the first.
        next_seq: Position that the next chunk of this epoch has.
        offset: Offset of the last event, 0 before the first.
        base: Offset of the last event before this epoch, where records count from their opening;
            0 everywhere else. It is -1 if the epoch resets events that were never delivered.
    """

    epoch: int = 0
    attempt: int = 0
    next_seq: int = 0
    offset: int = 0
    base: int = 0


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a stream.

    Attributes:
        progress: The state after the last event delivered.
        position: The driver's position from which the next event's record is read. In the middle
            of a packed record it is the position *before* that record; ``progress`` identifies the
            chunks that were delivered already.
    """

    progress: Progress = Progress()
    position: str = START

    def encode(self, stream: StreamId) -> str:
        """Return the token: URL-safe text without padding, scoped to ``stream``."""
        p = self.progress
        version = _BASED if p.base else _PLAIN
        body = _HEAD.pack(version, _scope(stream), p.epoch, p.attempt, p.next_seq, p.offset)
        if version == _BASED:
            body += _BASE.pack(p.base)
        body += self.position.encode()
        body += zlib.crc32(body).to_bytes(_CRC_BYTES, "big")
        return base64.urlsafe_b64encode(body).decode("ascii").rstrip("=")

    @classmethod
    def decode(cls, token: str, stream: StreamId) -> Cursor:
        """Read a token that :meth:`encode` made for the same stream.

        Raises:
            CursorError: It is malformed or belongs to another stream.
        """
        try:
            body = base64.b64decode(token + "=" * (-len(token) % 4), altchars="-_", validate=True)
            if len(body) < _HEAD.size + _CRC_BYTES:
                raise ValueError("too short")
            body, crc = body[:-_CRC_BYTES], body[-_CRC_BYTES:]
            if zlib.crc32(body).to_bytes(_CRC_BYTES, "big") != crc:
                raise ValueError("checksum mismatch")
            version, scope, *numbers = _HEAD.unpack_from(body)
            rest = body[_HEAD.size :]
            if version == _BASED:
                numbers += _BASE.unpack_from(rest)
                rest = rest[_BASE.size :]
            position = rest.decode()
        except (ValueError, binascii.Error, struct.error) as exc:
            shown = token if len(token) <= 40 else token[:37] + "..."
            raise CursorError(
                f"{shown!r} is not a cursor, or not all of one; give 'beginning', 'last', 'tail' "
                "or a cursor that a reader returned, unchanged",
                stream=str(stream),
            ) from exc
        if version not in (_PLAIN, _BASED):
            raise CursorError(
                f"cursor has version {version}; this streamq reads versions 1 and 2",
                stream=str(stream),
            )
        if scope != _scope(stream):
            raise CursorError(
                f"this cursor belongs to another stream than {stream}; read the stream that it "
                "came from, or start from the beginning",
                stream=str(stream),
            )
        return cls(Progress(*numbers), position)


def _scope(stream: StreamId) -> bytes:
    return hashlib.blake2b(stream.full_name.encode(), digest_size=8).digest()
