"""Encodes the chunks of one writer: joins halves of characters, encodes, checks the size.

Design: docs/design/values.md.
"""

from __future__ import annotations

from typing import Any

from streamq.records._text import HalfCharacters
from streamq.records._values import Encoding, Serializer

from ._limits import Limits


class ChunkEncoder:
    """Encodes values in the order in which they are sent.

    Args:
        serializer: Encodes one value.
        limits: The writer's limits.
    """

    def __init__(self, serializer: Serializer[Any], limits: Limits) -> None:
        self._serializer = serializer
        self._limits = limits
        self._halves = HalfCharacters()
        self._before = ""

    def encode(self, value: Any) -> tuple[Encoding, bytes]:
        """Encode the value of the next chunk.

        Raises:
            SerializationError: It cannot be encoded.
            ChunkTooLargeError: It is larger than a limit.
        """
        self._before = self._halves.waiting
        try:
            if isinstance(value, str):
                value = self._halves.join(value)
            encoding, data = self._serializer.encode(value)
            self._limits.check_chunk(len(data))
        except BaseException:
            self.withdraw()
            raise
        return encoding, data

    def withdraw(self) -> None:
        """Take back the last value: it is not sent."""
        self._halves.waiting = self._before

    def end(self) -> tuple[Encoding, bytes] | None:
        """Return a chunk for half a character whose other half never came, if there is one."""
        text = self._halves.end()
        return self._serializer.encode(text) if text else None
