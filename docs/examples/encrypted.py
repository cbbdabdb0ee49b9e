"""An encrypting payload codec covers the stream: the queue holds no readable text."""

import asyncio
import dataclasses
import os
import uuid
from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.converter import DataConverter, PayloadCodec
from temporalio.worker import Worker

from streamq import Chunk, StreamWriter, open_queue
from streamq.driver import START
from streamq.temporal import StreamqPlugin, connect, streaming_activity, subscribe

with workflow.unsafe.imports_passed_through():  # workflows do not encrypt: their worker does
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class Encryption(PayloadCodec):
    """Encrypts whole payloads by AES-GCM, including the metadata of their type."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt, each payload with a nonce of its own."""
        return [
            Payload(metadata={"encoding": b"binary/encrypted"}, data=self._encrypt(each))
            for each in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt the payloads of `encode`; an altered one raises `InvalidTag`."""
        return [
            Payload.FromString(self._cipher.decrypt(each.data[:12], each.data[12:], None))
            for each in payloads
        ]

    def _encrypt(self, payload: Payload) -> bytes:
        nonce = os.urandom(12)
        return nonce + self._cipher.encrypt(nonce, payload.SerializeToString(), None)


@streaming_activity
async def dictate(stream: StreamWriter[str], patient: str) -> str:
    """Send a letter line by line; return what to do."""
    for line in (f"Dear {patient},", "the results are here,", "and all is well."):
        await stream.send_chunk(line)
    return f"send to {patient}"


@workflow.defn
class Letter:
    """Knows nothing of encryption."""

    @workflow.run
    async def run(self, patient: str) -> str:
        """Return what to do with the letter."""
        return await workflow.execute_activity(
            dictate,
            patient,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
        )


async def main() -> None:
    """Run the worker and the workflow, read the stream, and then its stored records."""
    key = AESGCM.generate_key(bit_length=256)  # yours comes from where you keep secrets
    converter = dataclasses.replace(DataConverter.default, payload_codec=Encryption(key))
    client = await connect(data_converter=converter, plugins=[StreamqPlugin()])
    async with Worker(client, task_queue="letters", workflows=[Letter], activities=[dictate]):
        handle = await client.start_workflow(
            Letter.run, "Ada", id=f"letter-{uuid.uuid4()}", task_queue="letters"
        )
        async with subscribe(handle) as events:  # decrypts: it has the client's converter
            async for event in events:
                if isinstance(event, Chunk):
                    print(event.value)
        print(await handle.result())
    async with open_queue() as queue:
        stored = await queue.read(
            events.stream, START, max_records=100, max_bytes=1_000_000, max_wait=0
        )
    for record in stored:
        readable = any(word in record.data for word in (b"Ada", b"results", b"well"))
        print(f"stored: {len(record.data)} bytes,", "readable" if readable else "nothing readable")


if __name__ == "__main__":
    asyncio.run(main())
