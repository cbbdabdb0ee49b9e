"""Applies a user's codec (encryption, compression) to records on their way to and from the backend.

Design: docs/design/values.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Protocol

from streamq._errors import CorruptRecordError, SerializationError, error_text

from ._wire import Record


class Codec(Protocol):
    """Encodes the chunks and texts of records; numbers and the state of the seal stay readable.

    It is called once for each record, not for each chunk. Calls may be repeated and may come in any
    order.
    """

    async def encode(self, data: bytes) -> bytes:
        """Return the bytes to store."""
        ...

    async def decode(self, data: bytes) -> bytes:
        """Return the bytes that :meth:`encode` was called with."""
        ...


async def conceal(record: Record, codec: Codec, *, seconds: float) -> Record:
    """Return a record whose chunks and seal texts went through the codec.

    Raises:
        SerializationError: The codec failed or took too long; retryable.
    """
    if not record.chunks and record.seal is None:
        return record
    return replace(record, coded=await _call(codec.encode(record.body()), "encode", seconds))


async def reveal(record: Record, codec: Codec | None, *, seconds: float) -> Record:
    """Return a record as it was before its codec encoded it.

    Raises:
        SerializationError: There is no codec, it failed, or it took too long; retryable if the
            cause is an outage.
        CorruptRecordError: The codec returned something else than was encoded.
    """
    if record.coded is None:
        return record
    if codec is None:
        raise SerializationError(
            "this stream is encoded by a payload codec; read it with the data converter of its "
            "Temporal client: subscribe() has it, open_reader takes codec=, the gateway and the "
            "command line take STREAMQ_DATA_CONVERTER=module:name"
        )
    body = await _call(codec.decode(record.coded), "decode", seconds)
    try:
        return record.reveal(body)
    except CorruptRecordError as exc:
        raise CorruptRecordError(
            f"the payload codec returned something else than was encoded ({exc}); is it the same "
            "codec, with the same key?"
        ) from None


async def _call(call: Awaitable[bytes], verb: str, seconds: float) -> bytes:
    try:
        async with asyncio.timeout(seconds) as patience:
            return await call
    except Exception as exc:
        if isinstance(exc, TimeoutError) and patience.expired():
            message = (
                f"the payload codec did not {verb} a record within {seconds:g} s "
                "(STREAMQ_OPERATION_SECONDS)"
            )
        else:
            message = (
                f"the payload codec cannot {verb} a record: {type(exc).__name__}: {error_text(exc)}"
            )
        error = SerializationError(message)
        # A key service that is down comes back; a wrong key, found only by decoding, stays wrong.
        error.retryable = verb == "encode" or isinstance(exc, OSError)
        raise error from exc
