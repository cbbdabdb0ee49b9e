"""Translates streams into keys, ``{prefix}/{tenant}/{name}/{number}``, and keys into streams.

Numbers of segments count down, because S3 lists keys in ascending order only. A listing therefore
begins with the newest segment: one request finds the end of a stream of any length.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets

from streamq.driver import StreamId, skip_foreign, stored_stream

from ._errors import BACKEND

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
_CUT = re.compile("![0-9A-F]?$")
_HASHED = "!!"
_REST = "~"
_KEPT_WHOLE = 1_024
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

    def stream(self, directory: str, kept: str) -> StreamId | None:
        """Return the stream of a directory; ``None``, and a line in the log, if it has none.

        Args:
            directory: The directory; others may use the same bucket.
            kept: What :meth:`kept_name` returned for the stream.
        """
        parts = directory.removeprefix(self.root).rstrip("/").split("/")
        try:
            tenant, name = map(_unescape, parts)
            if _HASHED in parts[1]:
                name = _joined(parts[1].partition(_HASHED)[0], kept)
        except ValueError:
            skip_foreign(BACKEND, directory, "it has no name that streamq has given")
            return None
        found = stored_stream(tenant, name, backend=BACKEND, place=lambda: directory)
        if found is not None and self.directory(found) != directory:
            skip_foreign(BACKEND, directory, "its name is not the one in its objects")
            return None
        return found

    def kept_name(self, stream: StreamId) -> str:
        """Return what the metadata has to keep of a name; empty if the directory has all of it.

        A name of up to 1,024 bytes is kept as a whole. Of a longer one the end is kept, which the
        directory does not have: all metadata of an object share 2,048 bytes.
        """
        escaped, name = _escape(stream.name), stream.name.encode()
        if len(escaped) <= _LONGEST_NAME:
            return ""
        if len(name) <= _KEPT_WHOLE:
            return base64.urlsafe_b64encode(name).decode()
        rest = name[len(_beginning(escaped[:_LONGEST_NAME])) :]
        return _REST + base64.urlsafe_b64encode(rest).decode()

    def is_directory(self, directory: str) -> bool:
        """Whether a directory has the form of those of streams: others may use the same bucket."""
        return len(directory.removeprefix(self.root).rstrip("/").split("/")) == 2


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


def _unescape(name: str) -> bytes:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name).encode("latin-1")


def _beginning(escaped: str) -> bytes:
    """Return the bytes of an escaped name that was cut, without one that was cut itself."""
    return _unescape(_CUT.sub("", escaped))


def _joined(escaped: str, kept: str) -> bytes:
    whole = base64.b64decode(kept.removeprefix(_REST), altchars=b"-_", validate=True)
    return _beginning(escaped) + whole if kept.startswith(_REST) else whole
