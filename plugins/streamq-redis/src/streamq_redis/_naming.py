"""Names the keys of streams: ``{prefix}:{tenant/name}``, the second pair of braces literal.

The braces make a Cluster hash tag, so that data that is later stored beside a stream can share its
slot. ``%``, ``{`` and ``}`` of a name are percent-encoded: the tag stays well formed, and two names
never share a key.

Beside the streams a tenant may have an index of their names, ``{prefix}:{tenant/}:names``. One
pattern of an ACL, ``{prefix}:{tenant/*``, covers both.

Design: docs/design/redis.md.
"""

from __future__ import annotations

import re

from streamq.driver import StreamId, skip_foreign, stored_stream

from ._errors import BACKEND

_ENCODED = {"%": "%25", "{": "%7B", "}": "%7D"}
_DECODED = {code.encode(): char.encode() for char, code in _ENCODED.items()}
_SPECIAL = re.compile("[%{}]")
_CODE = re.compile(b"|".join(_DECODED))
_GLOB = re.compile(r"([\\*?\[\]^-])")


class KeySpace:
    """Translates between streams and keys below one prefix.

    Args:
        prefix: Beginning of every key.
        is_indexed: Whether each tenant has an index of the names of its streams.

    Attributes:
        is_indexed: The same.
    """

    def __init__(self, prefix: str, *, is_indexed: bool = False) -> None:
        self._start = f"{prefix}:{{"
        self.is_indexed = is_indexed
        self.granted = self.of_tenant("TENANT") if is_indexed else f"{prefix}:*"
        """Pattern of the keys that a user needs, as an ACL has it."""

    def key(self, stream: StreamId) -> bytes:
        """Return the key of a stream."""
        return f"{self._start}{stream.tenant}/{_encode(stream.name)}}}".encode()

    def stream(self, key: bytes) -> StreamId | None:
        """Return the stream of a key; ``None``, and a line in the log, if the key is not ours."""
        tenant, _, name = key[len(self._start.encode()) : -1].partition(b"/")
        decoded = _CODE.sub(lambda code: _DECODED[code[0]], name)
        found = stored_stream(tenant, decoded, backend=BACKEND, place=lambda: _place(key))
        return found if found is None or self.key(found) == key else skipped(key)

    def index(self, tenant: str) -> bytes:
        """Return the key of the index of a tenant's streams."""
        return f"{self._start}{tenant}/}}:names".encode()

    def member(self, stream: StreamId) -> bytes:
        """Return what the index of its tenant calls a stream."""
        return _encode(stream.name).encode()

    def key_of_member(self, tenant: str, member: bytes) -> bytes:
        """Return the key of a stream that the index of its tenant has."""
        return f"{self._start}{tenant}/".encode() + member + b"}"

    def of_tenant(self, tenant: str) -> str:
        """Return the pattern of all keys of a tenant, as an ACL has it."""
        return f"{self._start}{tenant}/*"

    def members(self, prefix: str) -> bytes:
        """Return a glob pattern for what an index calls streams whose name has a prefix."""
        return (_GLOB.sub(r"\\\1", _encode(prefix)) + "*").encode()

    def pattern(self, tenant: str, prefix: str) -> bytes:
        """Return a glob pattern for the keys of a tenant's streams whose name has a prefix."""
        return (_GLOB.sub(r"\\\1", f"{self._start}{tenant}/{_encode(prefix)}") + "*}").encode()


def skipped(key: bytes) -> StreamId | None:
    """Note in the log that a key is skipped, which would be another one if it were ours."""
    skip_foreign(BACKEND, _place(key), "streamq would give this stream another key")
    return None


def _place(key: bytes) -> str:
    return f"key {key.decode(errors='backslashreplace')}"


def _encode(name: str) -> str:
    return _SPECIAL.sub(lambda char: _ENCODED[char[0]], name)
