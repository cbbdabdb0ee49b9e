"""Defines the chunk that stands in a stream for an object next to it.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from streamq import SerializationError
from streamq_s3sns._naming import object_begin

LONGEST_NAME = 255

_TOKEN = "[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
MEDIA_TYPE = re.compile(rf"({_TOKEN}/{_TOKEN})(; ?charset=[A-Za-z0-9_-]{{1,40}})?")
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """An object that was handed over; send it as a chunk, by itself or inside another value.

    In JSON it is an object with these five members. A reader gets it back with
    ``value_type=ObjectReference``, or from a value that it has read with :meth:`of`.

    Attributes:
        id: Names the object within its stream. It has no meaning in another stream.
        bytes: Size of the object.
        media_type: Type of the object, as the producer states it.
        name: Name for a file with the object; may be empty.
        sha256: Digest of the object's bytes, in hexadecimal.

    Raises:
        ValueError: A value cannot come from :meth:`HandOver.upload`.
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
        """Return the reference in the value of a chunk.

        Raises:
            SerializationError: The value is not a reference.
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
    """Check that a media type can be sent in a header.

    Raises:
        ValueError: It is not a media type.
    """
    if not MEDIA_TYPE.fullmatch(media_type):
        raise ValueError(f"media type {media_type[:60]!r} is not one like 'video/mp4'")


def check_name(name: str) -> None:
    """Check that a file can have a name.

    Raises:
        ValueError: The name is too long, or has unprintable characters.
    """
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise ValueError(
            f"name {name[:60]!r} is not up to {LONGEST_NAME} printable characters long"
        )
