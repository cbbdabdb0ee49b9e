"""Translates streams into keys, ``{prefix}/{tenant}/{name}/{number}``, and keys into streams.

Numbers of segments count down, because S3 lists keys in ascending order only. A listing therefore
begins with the newest segment: one request finds the end of a stream of any length.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from streamq.driver import StreamId

LARGEST_NUMBER = 10**12 - 1

ANNOUNCEMENT = "-next"
"""Last part of the key of the object by which a newer epoch announces that it takes over a stream;
it sorts before the digits."""

OBJECT = "-object-"
"""Beginning of the last part of the key of an object that was handed over; it sorts before the
digits as well."""

FENCE = "-fence-"
"""Beginning of the last part of the key of the object that is stored for a moment to check that the
server refuses to overwrite it; it sorts before the digits as well."""

_OBJECT_ID = re.compile("([0-9]{12})-[0-9a-f]{32}")
_SPECIAL = re.compile(rb"[^A-Za-z0-9._-]")
_ESCAPED = re.compile("!([0-9A-F]{2})")
_LONGEST_NAME = 600  # escaped; S3 accepts keys of 1024 bytes
_HASHED = "!!"
_HASH_DIGITS = 32


class KeySpace:
    """The keys below one prefix.

    A *directory* is the beginning of all keys of one stream, including the last slash.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.root = f"{prefix}/"

    def tenant(self, tenant: str) -> str:
        """Return the beginning of all keys of a tenant."""
        return f"{self.root}{_escape(tenant)}/"

    def directory(self, stream: StreamId) -> str:
        """Return the directory of a stream."""
        name = _escape(stream.name)
        if len(name) > _LONGEST_NAME:
            digest = hashlib.sha256(stream.name.encode()).hexdigest()[:_HASH_DIGITS]
            name = f"{name[:_LONGEST_NAME]}{_HASHED}{digest}"
        return f"{self.tenant(stream.tenant)}{name}/"

    def names(self, tenant: str, prefix: str) -> str:
        """Return the beginning of the keys of all streams of a tenant whose names have a prefix."""
        return f"{self.tenant(tenant)}{_escape(prefix)[:_LONGEST_NAME]}"

    def stream(self, directory: str) -> StreamId | None:
        """Return the stream of a directory; ``None`` if the directory has its name in part only."""
        tenant, name = directory.removeprefix(self.root).rstrip("/").split("/")
        if _HASHED in name:
            return None
        return StreamId(_unescape(tenant), _unescape(name))

    def tenant_of(self, directory: str) -> str:
        """Return the tenant of a directory."""
        return _unescape(directory.removeprefix(self.root).partition("/")[0])

    def is_directory(self, directory: str) -> bool:
        """Whether a directory can belong to a stream: others may use the same bucket."""
        parts = directory.removeprefix(self.root).rstrip("/").split("/")
        try:
            return len(parts) == 2 and (
                _HASHED in parts[1] or self.directory(StreamId(*map(_unescape, parts))) == directory
            )
        except ValueError:
            return False


def segment_name(number: int) -> str:
    """Return the last part of the key of a segment."""
    return f"{LARGEST_NUMBER - number:012}"


def segment_number(directory: str, key: str) -> int | None:
    """Return the number of a segment of a stream from its key; ``None`` for any other key."""
    name = key.removeprefix(directory)
    if len(name) != 12 or not (name.isascii() and name.isdigit()):
        return None
    return LARGEST_NUMBER - int(name)


def new_object_id(begin: int) -> str:
    """Return a unique id for an object.

    Args:
        begin: Number of the first segment of the object's stream. It distinguishes the stream from
            a later one of the same name.
    """
    return f"{begin:012}-{secrets.token_hex(16)}"


def object_begin(identity: str) -> int | None:
    """Return the number in the id of an object; ``None`` if the text is not such an id."""
    found = _OBJECT_ID.fullmatch(identity)
    return int(found[1]) if found else None


def _escape(name: str) -> str:
    # Not with percent signs: clients escape them again, and not every server undoes that.
    # A leading dot would make "." and ".." of a path.
    escaped = _SPECIAL.sub(lambda found: b"!%02X" % found[0][0], name.encode()).decode()
    return f"!2E{escaped[1:]}" if escaped.startswith(".") else escaped


def _unescape(name: str) -> str:
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)
    return text.encode("latin-1").decode()
