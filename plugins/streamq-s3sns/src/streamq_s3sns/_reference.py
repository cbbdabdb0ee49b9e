"""What stands in the stream for an object that lies beside it, and how browsers are told of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from streamq import SerializationError

from ._keys import object_begin

OCTETS = "application/octet-stream"

_TOKEN = "[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
_MEDIA_TYPE = re.compile(rf"({_TOKEN}/{_TOKEN})(; ?charset=[A-Za-z0-9_-]{{1,40}})?")
_ACTIVE = re.compile(r".*[/+](x?html|xml|xsl.*|svg|(x-)?(java|ecma)script.*)", re.IGNORECASE)
_DIGEST = re.compile("[0-9a-f]{64}")
_LONGEST_NAME = 255
_UNSAFE_IN_NAMES = frozenset('/\\:*?"<>|%')


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """An object that was handed over; send it as a chunk, by itself or inside another value.

    As JSON it is an object with these five members. A reader gets one back with
    ``value_type=ObjectReference``, or from what it has read with :meth:`of`.

    Attributes:
        id: Names the object within its stream; it means nothing in any other one.
        bytes: How large it is.
        media_type: What it is, as the producer says.
        name: What to call a file of it; may be empty.
        sha256: Digest of its bytes, in hexadecimal.

    Raises:
        ValueError: A value is none that :meth:`HandOver.upload` gives.
    """

    id: str
    bytes: int
    media_type: str
    name: str
    sha256: str

    def __post_init__(self) -> None:
        if object_begin(self.id) is None:
            raise ValueError(f"id {self.id[:60]!r} is not that of an object")
        if self.bytes < 0:
            raise ValueError(f"bytes is {self.bytes}, less than none")
        check_media_type(self.media_type)
        check_name(self.name)
        if not _DIGEST.fullmatch(self.sha256):
            raise ValueError(f"sha256 {self.sha256[:70]!r} is not 64 hexadecimal digits")

    @classmethod
    def of(cls, value: object) -> ObjectReference:
        """Return the reference that a chunk's value is.

        Raises:
            SerializationError: It is something else.
        """
        try:
            return _ADAPTER.validate_python(value)
        except ValidationError as exc:
            found = exc.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in found["loc"])
            raise SerializationError(
                f"a value is not a reference to an object ({where + ': ' if where else ''}"
                f"{found['msg']}); it has to be what `HandOver.upload` returned"
            ) from None


_ADAPTER = TypeAdapter(ObjectReference)


def check_media_type(media_type: str) -> None:
    """See that it can be a header.

    Raises:
        ValueError: It is not one.
    """
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise ValueError(f"media type {media_type[:60]!r} is not one like 'video/mp4'")


def check_name(name: str) -> None:
    """See that a file can have been called so.

    Raises:
        ValueError: It is too long, or has unprintable characters.
    """
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise ValueError(
            f"name {name[:60]!r} is not up to {_LONGEST_NAME} printable characters long"
        )


def shown_type(media_type: str) -> str:
    """Return what a browser is told that the object is.

    What could run scripts is told to be bytes: whoever may write to the stream would otherwise
    have code in the pages of the bucket's host, or of whatever stands before it.
    """
    found = _MEDIA_TYPE.fullmatch(media_type)
    return OCTETS if found is None or _ACTIVE.fullmatch(found[1]) else media_type


def disposition(name: str) -> str:
    """Return the header that makes a browser store an object instead of opening it.

    Images, sounds and films of a page are shown all the same: there it does not count.
    """
    safe = "".join(
        "_" if character in _UNSAFE_IN_NAMES or not character.isprintable() else character
        for character in name[:_LONGEST_NAME]
    ).strip(". ")
    if not safe:
        return "attachment"
    plain = safe.encode("ascii", "replace").decode().replace("?", "_")
    extended = f"; filename*=UTF-8''{quote(safe, safe='')}" if plain != safe else ""
    return f'attachment; filename="{plain}"{extended}'
