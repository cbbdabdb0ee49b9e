"""Names the keys of streams: ``{prefix}:{tenant/name}``, the second pair of braces literal.

The braces make a Cluster hash tag, so that whatever is later stored beside a stream can share its
slot. ``%``, ``{`` and ``}`` of a name are percent-encoded: the tag stays well formed, and two names
never share a key.

Design: docs/design/redis.md.
"""

from __future__ import annotations

import re

from streamq.driver import StreamId

_ENCODED = {"%": "%25", "{": "%7B", "}": "%7D"}
_DECODED = {code: char for char, code in _ENCODED.items()}
_SPECIAL = re.compile("[%{}]")
_CODE = re.compile("|".join(_DECODED))
_GLOB = re.compile(r"([\\*?\[\]^-])")


class KeySpace:
    """Translates between streams and keys below one prefix."""

    def __init__(self, prefix: str) -> None:
        self._start = f"{prefix}:{{"

    def key(self, stream: StreamId) -> bytes:
        """Return the key of a stream."""
        return f"{self._start}{stream.tenant}/{_encode(stream.name)}}}".encode()

    def stream(self, key: bytes) -> StreamId | None:
        """Return the stream of a key; ``None`` if the key is not one of ours."""
        try:
            text = key.decode()
            if not (text.startswith(self._start) and text.endswith("}")):
                return None
            tenant, _, name = text[len(self._start) : -1].partition("/")
            found = StreamId(tenant, _CODE.sub(lambda code: _DECODED[code[0]], name))
        except ValueError:
            return None
        return found if self.key(found) == key else None

    def pattern(self, tenant: str, prefix: str) -> bytes:
        """Return a glob pattern for the keys of a tenant's streams whose name has a prefix."""
        return (_GLOB.sub(r"\\\1", f"{self._start}{tenant}/{_encode(prefix)}") + "*}").encode()


def _encode(name: str) -> str:
    return _SPECIAL.sub(lambda char: _ENCODED[char[0]], name)
