"""A proxy between a driver and the emulator that refuses requests, and notes who made them."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_HEAD_BYTES = 65_536
_CREDENTIAL = re.compile(r"Credential=([^/]+)/")
_TARGET = re.compile(r"^x-amz-target: *(\S+)", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(r"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Refusal:
    """What a service answers instead of serving.

    Attributes:
        code: What it calls the error.
        status: Of HTTP.
        times: For how many requests of each kind.
    """

    code: str
    status: int
    message: str = "Some words."
    times: float = float("inf")


@dataclass
class Between:
    """Carries one request a connection to the emulator.

    Attributes:
        server: Where that is, host and port.
        refusal: What requests get, or ``None``.
        refused: How many requests were refused, by kind.
        keys: Access keys that requests were signed with.
    """

    server: str
    refusal: Refusal | None = None
    refused: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    _carrying: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """What to set AWS_ENDPOINT_URL to."""
        host, port = self._listener.sockets[0].getsockname()
        return f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_HEAD_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._listener.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.keys.update(_CREDENTIAL.findall(head))
            kind = _kind(head)
            refusal = self.refusal
            if refusal is not None and self.refused[kind] < refusal.times:
                self.refused[kind] += 1
                if (length := _LENGTH.search(head)) and "100-continue" not in head.lower():
                    await reader.readexactly(int(length[1]))
                answer = _answer(refusal, is_json=_TARGET.search(head) is not None)
                if head.startswith("HEAD "):
                    answer = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
                writer.write(answer)
                await writer.drain()
            else:
                await self._pass_on(head, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            return  # the other side has gone
        finally:
            writer.close()

    async def _pass_on(
        self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        host, port = self.server.split(":")
        there, to_there = await asyncio.open_connection(host, int(port))
        head = re.sub(r"\r\nConnection:[^\r]*", "", head, flags=re.IGNORECASE)
        to_there.write(head.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").encode("latin-1"))
        sending = asyncio.create_task(_pour(reader, to_there))
        try:
            await _pour(there, writer)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            to_there.close()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


def _kind(head: str) -> str:
    """Return what a request asks for: SQS says so in a header, S3 by its verb."""
    target = _TARGET.search(head)
    return target[1] if target else head.split(" ", 1)[0]


def _answer(refusal: Refusal, *, is_json: bool) -> bytes:
    code, message = refusal.code, refusal.message
    if is_json:
        body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": message})
    else:
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    kind = "application/x-amz-json-1.0" if is_json else "application/xml"
    lines = (
        f"HTTP/1.1 {refusal.status} Refused",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", body)).encode()
