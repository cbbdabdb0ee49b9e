"""Puts the places of all streams of a connection into one token, which is the id of its events.

An ``EventSource`` sends back the last id and nothing else, so each id has all places. The token is
``m1.`` and base64url of: the base (8 bytes), and for each stream the first 6 bytes of the SHA-256
of its name, its offset, and how far the epoch is from the base. Numbers are varints.

Design: docs/design/many-streams.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Protocol

from streamq.gateway._error_responses import BadRequestError
from streamq.gateway._places import EventPlace
from streamq.records._wire import MAX_EPOCH

_VERSION = "m1."
_DIGEST_BYTES = 6
_BASE_BYTES = 8
_MOST_CHARACTERS = 16_384


class KnownPlaces(Protocol):
    """The places that a client has already."""

    def of(self, name: str) -> EventPlace | None:
        """Return the place in a stream; ``None`` if the client has none."""

    def __len__(self) -> int:
        """Return how many there are."""


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
        self._entries: dict[bytes, bytes] = {}
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
                f"the gateway has sent it: it begins with {_VERSION!r}. The place of one stream "
                "belongs to POST, in the field after, or to the address of that stream"
            ) from None
        return token

    def of(self, name: str) -> EventPlace | None:
        """Return the place in a stream; ``None`` if the token has none."""
        entry = self._entries.get(_digest(name))
        return None if entry is None else self._place(entry)

    def admit(self, name: str) -> bool:
        """Begin to keep the place of a stream.

        Returns:
            Whether that is possible: not if another name has the same digest.
        """
        return self._names.setdefault(_digest(name), name) == name

    def set(self, name: str, place: EventPlace) -> None:
        """Note a place."""
        self._entries[_digest(name)] = self._entry(place)

    def ids_of(self, name: str) -> StreamIds:
        """Return what makes the ids of events of one stream, while the others stay where they are.

        The caller notes the last place by :meth:`set`.
        """
        return StreamIds(self, _digest(name))

    def __str__(self) -> str:
        return self._text(b"".join(key + entry for key, entry in self._entries.items()))

    def _text(self, entries: bytes) -> str:
        data = self._base.to_bytes(_BASE_BYTES, "big") + entries
        return _VERSION + base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")

    def _entry(self, place: EventPlace) -> bytes:
        if not place.epoch:
            return _varint(place.offset << 1)
        if not self._base:  # no entry has an epoch yet
            self._base = place.epoch
        distance = place.epoch - self._base
        zigzag = distance << 1 if distance >= 0 else (-distance << 1) - 1
        return _varint(place.offset << 1 | 1) + _varint(zigzag)

    def _place(self, entry: bytes) -> EventPlace:
        number, at = _read_varint(entry, 0)
        if not number & 1:
            return EventPlace(number >> 1)
        zigzag, _ = _read_varint(entry, at)
        distance = -((zigzag + 1) >> 1) if zigzag & 1 else zigzag >> 1
        return EventPlace(number >> 1, self._base + distance)

    def _read(self, text: str) -> None:
        if not text.startswith(_VERSION) or len(text) > _MOST_CHARACTERS or not text.isascii():
            raise ValueError
        coded = text.removeprefix(_VERSION)
        if "+" in coded or "/" in coded:
            raise ValueError
        try:
            data = base64.b64decode(coded + "=" * (-len(coded) % 4), b"-_", validate=True)
        except binascii.Error:
            raise ValueError from None
        self._base = int.from_bytes(data[:_BASE_BYTES], "big")
        if len(data) < _BASE_BYTES or self._base > MAX_EPOCH:
            raise ValueError
        at = _BASE_BYTES
        while at < len(data):
            key, begin = data[at : at + _DIGEST_BYTES], at + _DIGEST_BYTES
            number, at = _read_varint(data, begin)
            if number & 1:
                _, at = _read_varint(data, at)
            place = self._place(data[begin:at])
            if key in self._entries or not _is_possible(place):
                raise ValueError
            self._entries[key] = data[begin:at]


class StreamIds:
    """The ids of events that follow each other in one stream."""

    __slots__ = ("_after", "_before", "_token")

    def __init__(self, token: PlacesToken, key: bytes) -> None:
        before, after, target = bytearray(), bytearray(), None
        for each, entry in token._entries.items():
            if each == key:
                target = after
            else:
                (before if target is None else after).extend(each + entry)
        self._token = token
        self._before = bytes(before) + key
        self._after = bytes(after)

    def at(self, place: EventPlace) -> bytes:
        """Return the id of the event at a place."""
        token = self._token
        return token._text(self._before + token._entry(place) + self._after).encode("ascii")


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:_DIGEST_BYTES]


def _is_possible(place: EventPlace) -> bool:
    return place.offset <= MAX_EPOCH and 0 <= place.epoch <= MAX_EPOCH


def _varint(number: int) -> bytes:
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends; ``IndexError`` if the data ends within it."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
        if shift > 70:
            raise ValueError
