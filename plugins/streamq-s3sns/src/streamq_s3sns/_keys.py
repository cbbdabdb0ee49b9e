"""Names of objects: ``{prefix}/{tenant}/{name}/{number}``.

Numbers of segments count down, so that a listing, which S3 only gives in ascending order, begins
with the newest one: one request finds the end of a stream of any length.
"""

from __future__ import annotations

import hashlib
import re
import secrets

from streamq.driver import StreamId

LARGEST_NUMBER = 10**12 - 1

ANNOUNCEMENT = "-next"
"""Ends the key of what says that a newer epoch wants a stream; it sorts before the digits."""

OBJECT = "-object-"
"""Begins the last part of the key of an object that was handed over; it sorts there, too."""

FENCE = "-fence-"
"""Begins the last part of the key of what is stored for a moment to see whether S3 refuses it the
second time; it sorts there, too."""

_OBJECT_ID = re.compile("([0-9]{12})-[0-9a-f]{32}")
_SPECIAL = re.compile(rb"[^A-Za-z0-9._-]")
_ESCAPED = re.compile("!([0-9A-F]{2})")
_LONGEST_NAME = 600  # escaped; S3 takes keys of 1024 bytes
_HASHED = "!!"
_HASH_DIGITS = 32


class KeySpace:
    """Translates between streams and keys below one prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.root = f"{prefix}/"

    def tenant(self, tenant: str) -> str:
        """Return what the keys of a tenant begin with."""
        return f"{self.root}{_escape(tenant)}/"

    def directory(self, stream: StreamId) -> str:
        """Return what the keys of a stream begin with, the last slash included."""
        name = _escape(stream.name)
        if len(name) > _LONGEST_NAME:
            digest = hashlib.sha256(stream.name.encode()).hexdigest()[:_HASH_DIGITS]
            name = f"{name[:_LONGEST_NAME]}{_HASHED}{digest}"
        return f"{self.tenant(stream.tenant)}{name}/"

    def names(self, tenant: str, prefix: str) -> str:
        """Return what the keys of all streams of a tenant begin with whose name starts so."""
        return f"{self.tenant(tenant)}{_escape(prefix)[:_LONGEST_NAME]}"

    def stream(self, directory: str) -> StreamId | None:
        """Return the stream of a directory; ``None`` if its name is too long to be told from it."""
        tenant, name = directory.removeprefix(self.root).rstrip("/").split("/")
        if _HASHED in name:
            return None
        return StreamId(_unescape(tenant), _unescape(name))

    def tenant_of(self, directory: str) -> str:
        """Return the tenant of a directory."""
        return _unescape(directory.removeprefix(self.root).partition("/")[0])

    def is_directory(self, directory: str) -> bool:
        """Whether a directory could be one of ours: others may use the same bucket."""
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
    """Return the number of a segment of a stream from its key; ``None`` if it is something else."""
    name = key.removeprefix(directory)
    if len(name) != 12 or not (name.isascii() and name.isdigit()):
        return None
    return LARGEST_NUMBER - int(name)


def new_object_id(begin: int) -> str:
    """Return an id that no other object has.

    Args:
        begin: Number of the first segment of the stream that it belongs to, so that it is not
            taken for one of a later stream of the same name.
    """
    return f"{begin:012}-{secrets.token_hex(16)}"


def object_begin(identity: str) -> int | None:
    """Return the number in the id of an object; ``None`` if it is no such id."""
    found = _OBJECT_ID.fullmatch(identity)
    return int(found[1]) if found else None


def _escape(name: str) -> str:
    # Percent signs would be escaped once more on the way, and not every server takes that back.
    # A leading dot would make "." and ".." of a path.
    escaped = _SPECIAL.sub(lambda found: b"!%02X" % found[0][0], name.encode()).decode()
    return f"!2E{escaped[1:]}" if escaped.startswith(".") else escaped


def _unescape(name: str) -> str:
    text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)
    return text.encode("latin-1").decode()
