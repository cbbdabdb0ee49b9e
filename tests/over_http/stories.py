"""Writes streams in which everything occurs that a reader can meet."""

from __future__ import annotations

from temporalio.api.common.v1 import Payload
from tests.gateway.served import AsStored
from tests.hostile_values import HOSTILE

from streamq import Codec, Encoding, StreamWriter, load_settings, open_writer
from streamq.driver import ChunkQueue

LARGE = "".join(f"{number:07} " for number in range(400_000))
"""A chunk of several records, on a backend that takes a megabyte in each."""

PROTOBUF = Payload(
    metadata={"encoding": b"binary/protobuf", "messageType": b"acme.Order"}, data=b"\x0a\x03abc"
).SerializeToString()


async def write_everything(queue: ChunkQueue, name: str, codec: Codec | None = None) -> None:
    """Write three attempts: hostile texts; many small and one large chunk; strange values."""
    async with open_writer_unsealed(name, queue, codec) as writer:
        for text in HOSTILE.values():
            await writer.send_chunk(text.encode("utf-8", "replace").decode())
            await writer.send_chunk({"a": text.encode("utf-8", "replace").decode()})
    async with open_writer_unsealed(name, queue, codec) as writer:
        for number in range(1_000):
            await writer.send_chunk(f"{number} ")
        await writer.send_chunk(LARGE)
    async with open_writer(name, queue=queue, codec=codec, serializer=AsStored()) as writer:
        await writer.send_chunk((Encoding.PAYLOAD, PROTOBUF))
        await writer.send_chunk((Encoding.PAYLOAD, b"no payload"))
        await writer.send_chunk((Encoding.JSON, b'{"a": NaN}'))
        await writer.send_chunk((Encoding.TEXT, b"\xff\xed\xa0\xbd"))
        await writer.send_chunk((Encoding.BYTES, bytes(range(256))))
        await writer.send_chunk((Encoding.BYTES, b""))


class open_writer_unsealed:
    """Opens a stream for an attempt that dies: it ends without a seal."""

    def __init__(self, name: str, queue: ChunkQueue, codec: Codec | None = None) -> None:
        settings = load_settings(max_chunk_bytes=8_388_608)
        self._opening = open_writer(name, queue=queue, settings=settings, codec=codec)

    async def __aenter__(self) -> StreamWriter:
        self._writer = await self._opening
        return self._writer

    async def __aexit__(self, *raised: object) -> None:
        await self._writer.flush()
        await self._writer.aclose()
