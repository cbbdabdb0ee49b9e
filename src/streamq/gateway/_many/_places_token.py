"""Puts the places of all streams of a connection into one token, which is the id of its events.

An ``EventSource`` sends back the last id and nothing else, so each id has all places. The token is
``m1.`` and base64url of: the base (9 bytes), and for each stream the first 6 bytes of the SHA-256
of its name, the lengths of two numbers, its offset, and how far the epoch is from the base. Zeros
make each entry a multiple of 3 bytes long, so that it is encoded by itself, and an event encodes
one.

Design: docs/design/many-streams.md.
"""

from __future__ import annotations

import binascii
import hashlib
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Protocol

from streamq.gateway._error_responses import BadRequestError
from streamq.gateway._places import EventPlace
from streamq.records._wire import MAX_EPOCH

_VERSION = b"m1."
_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")
_DIGEST_BYTES = 6
_BASE_BYTES = 9
_STEP = 3
_NO_EPOCH = 15
_MOST_CHARACTERS = 16_384


class KnownPlaces(Protocol):
    """The places that a client has already."""

    def of(self, name: str) -> EventPlace | None:
        """Return the place in a stream; ``None`` if the client has none."""


class NamedPlaces(dict[str, EventPlace]):
    """Places by the names of the streams, as a body lists them."""

    def of(self, name: str) -> EventPlace | None:
        """Return the place in a stream."""
        return self.get(name)


class PlacesToken:
    """The places of the streams of one connection; changed in place, event by event.

    A stream that is not set begins where the request says.
    """

    def __init__(self) -> None:
        self._base = 0
        self._head = _head(0)
        self._at: dict[bytes, int] = {}
        self._entries: list[bytes] = []
        self._names: dict[bytes, str] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @classmethod
    def parse(cls, where: str, text: str) -> PlacesToken:
        """Read a token that a client sends back.

        Args:
            where: The parameter or header that it comes from, for messages.
            text: The token.

        Raises:
            BadRequestError: It is none.
        """
        try:
            token = cls()
            token._read(text)
        except (ValueError, IndexError):
            raise BadRequestError(
                f"{where} is {text[:60]!r}; it has to be the id of an event of many streams, as "
                f"the gateway has sent it: it begins with {_VERSION.decode()!r}. The place "
                "of one stream belongs to POST, in the field after, or to that stream's address"
            ) from None
        return token

    def of(self, name: str) -> EventPlace | None:
        """Return the place in a stream; ``None`` if the token has none."""
        at = self._at.get(_digest(name))
        return None if at is None else self._place(_decoded(self._entries[at]), 0)[0]

    def admit(self, name: str, most: int) -> bool:
        """Begin to keep the place of a stream, if the token then has at most ``most``.

        Returns:
            Whether that is possible: not if another name has the same digest, either.
        """
        key = _digest(name)
        if key not in self._names and key not in self._at and self.admitted >= most:
            return False
        return self._names.setdefault(key, name) == name

    @property
    def admitted(self) -> int:
        """Number of streams whose places are kept."""
        return len(self._names.keys() | self._at.keys())

    def forget(self, name: str) -> None:
        """Keep the place of a stream no longer."""
        key = _digest(name)
        if self._names.get(key, name) == name:
            self._names.pop(key, None)
            self._keep_only(self._at.keys() - {key})

    def keep(self, names: Iterable[str]) -> None:
        """Forget the places of all streams but these and the admitted ones."""
        self._keep_only(self._names.keys() | {_digest(name) for name in names})

    def set(self, name: str, place: EventPlace) -> None:
        """Note a place."""
        key = _digest(name)
        self._put(key, self._entry(key, place))

    def ids_of(self, name: str) -> StreamIds:
        """Return what makes the ids of events of one stream, while the others stay where they are.

        The caller notes the last place by :meth:`set`.
        """
        return StreamIds(self, _digest(name))

    def __str__(self) -> str:
        return (self._head + b"".join(self._entries)).decode("ascii")

    def _put(self, key: bytes, entry: bytes) -> None:
        at = self._at.setdefault(key, len(self._entries))
        if at == len(self._entries):
            self._entries.append(entry)
        else:
            self._entries[at] = entry

    def _keep_only(self, keys: AbstractSet[bytes]) -> None:
        kept = [(key, self._entries[at]) for key, at in self._at.items() if key in keys]
        self._at = {key: at for at, (key, _) in enumerate(kept)}
        self._entries = [entry for _, entry in kept]

    def _entry(self, key: bytes, place: EventPlace) -> bytes:
        """Return the encoded entry of a stream."""
        offset = place.offset.to_bytes(_size(place.offset), "big")
        if place.epoch:
            if not self._base:  # no entry has an epoch yet
                self._base, self._head = place.epoch, _head(place.epoch)
            distance = place.epoch - self._base
            zigzag = distance << 1 if distance >= 0 else (-distance << 1) - 1
            epoch = zigzag.to_bytes(_size(zigzag), "big")
            data = b"%b%c%b%b" % (key, len(offset) << 4 | len(epoch), offset, epoch)
        else:
            data = b"%b%c%b" % (key, len(offset) << 4 | _NO_EPOCH, offset)
        return _encoded(data + bytes(-len(data) % _STEP))

    def _place(self, data: bytes, at: int) -> tuple[EventPlace, int]:
        """Return the place in the entry that begins at a byte, and where the next one begins."""
        begin = at + _DIGEST_BYTES + 1
        lengths = data[begin - 1]
        middle = begin + (lengths >> 4)
        end = middle + (0 if lengths & 15 == _NO_EPOCH else lengths & 15)
        after = end + -end % _STEP
        if after > len(data) or any(data[end:after]):
            raise ValueError
        offset, epoch = int.from_bytes(data[begin:middle], "big"), 0
        if lengths & 15 != _NO_EPOCH:
            zigzag = int.from_bytes(data[middle:end], "big")
            epoch = self._base + (-((zigzag + 1) >> 1) if zigzag & 1 else zigzag >> 1)
        if offset > MAX_EPOCH or not 0 <= epoch <= MAX_EPOCH:
            raise ValueError
        return EventPlace(offset, epoch), after

    def _read(self, text: str) -> None:
        token = text.encode("ascii", "replace")
        if not token.startswith(_VERSION) or len(token) > _MOST_CHARACTERS:
            raise ValueError
        data = _decoded(token.removeprefix(_VERSION))
        self._base = int.from_bytes(data[:_BASE_BYTES], "big")
        if len(data) < _BASE_BYTES or self._base > MAX_EPOCH:
            raise ValueError
        self._head = _head(self._base)
        at = _BASE_BYTES
        while at < len(data):
            key = data[at : at + _DIGEST_BYTES]
            place, at = self._place(data, at)
            if key in self._at:
                raise ValueError
            self._put(key, self._entry(key, place))


class StreamIds:
    """The ids of events that follow each other in one stream."""

    __slots__ = ("_after", "_before", "_key", "_token")

    def __init__(self, token: PlacesToken, key: bytes) -> None:
        at = token._at.get(key, len(token._entries))
        self._token = token
        self._key = key
        self._before = b"".join(token._entries[:at])
        self._after = b"".join(token._entries[at + 1 :])

    def at(self, place: EventPlace) -> bytes:
        """Return the id of the event at a place."""
        entry = self._token._entry(self._key, place)
        return b"%b%b%b%b" % (self._token._head, self._before, entry, self._after)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:_DIGEST_BYTES]


def _encoded(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL)


def _decoded(text: bytes) -> bytes:
    """Return what a text encodes; ``ValueError`` if it is no base64url of whole entries."""
    if len(text) % 4 or any(each in text for each in b"+/="):
        raise ValueError
    return binascii.a2b_base64(text.translate(_FROM_URL), strict_mode=True)


def _head(base: int) -> bytes:
    return _VERSION + _encoded(base.to_bytes(_BASE_BYTES, "big"))


def _size(number: int) -> int:
    return (number.bit_length() + 7) // 8
