"""Runs a proxy in front of the emulator that refuses requests and records their access keys."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

_HEAD_BYTES = 65_536
_CREDENTIAL = re.compile(r"Credential=([^/]+)/")
_TARGET = re.compile(r"^x-amz-target: *(\S+)", re.IGNORECASE | re.MULTILINE)
_UPLOAD = re.compile(r"PUT |POST [^ ]*\?uploads")
_LENGTH = re.compile(r"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Refusal:
    """An error that a service answers with.

    Attributes:
        code: Its code.
        status: Its HTTP status.
        message: Its text.
        times: How many requests of each kind are refused.
        only: Only requests whose head matches this expression are refused.
        headers: More headers of the answer.
        body: The whole body, of a server that is none of AWS; by default an error of the service.
        kind: Media type of that body.
    """

    code: str
    status: int
    message: str = "Some words."
    times: float = float("inf")
    only: str = ""
    headers: tuple[str, ...] = ()
    body: str | None = None
    kind: str = "text/html"

    def concerns(self, head: str) -> bool:
        """Whether a request is one of those that are refused."""
        return re.search(self.only, head, re.IGNORECASE | re.DOTALL) is not None


@dataclass
class RefusingProxy:
    """Forwards one request for each connection to the emulator, or refuses it.

    Attributes:
        server: Host and port of the emulator.
        refusal: How requests are refused; ``None`` to forward them.
        dropped: Headers that are not forwarded, as an expression; ``Expect`` never is, so that the
            emulator does not answer it.
        refused: Number of refused requests by kind.
        keys: Access keys of all requests.
        uploads: The head of each PUT, and of each POST that begins an upload.
    """

    server: str
    refusal: Refusal | None = None
    dropped: str = "Expect"
    refused: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)
    uploads: list[str] = field(default_factory=list)
    _forwarding: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """The value for AWS_ENDPOINT_URL."""
        host, port = self._listener.sockets[0].getsockname()
        return f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_HEAD_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._listener.close()
        for task in self._forwarding:
            task.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)
        await asyncio.sleep(0)  # what was cancelled while it closed is closed after this

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._handle(reader, writer))
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)
        task.add_done_callback(lambda _: writer.close())  # also if it was cancelled before it began

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.keys.update(_CREDENTIAL.findall(head))
            kind = _kind(head)
            if _UPLOAD.match(head):
                self.uploads.append(head)
            refusal = self.refusal
            if refusal and refusal.concerns(head) and self.refused[kind] < refusal.times:
                self.refused[kind] += 1
                if length := _LENGTH.search(head):
                    await reader.readexactly(int(length[1]))
                answer = _answer(refusal, is_json=_TARGET.search(head) is not None)
                if head.startswith("HEAD "):
                    answer = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
                writer.write(answer)
                await writer.drain()
            else:
                await self._forward(head, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            return  # the other side has gone
        finally:
            await _close(writer)

    async def _forward(
        self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        host, port = self.server.split(":")
        there, to_there = await asyncio.open_connection(host, int(port))
        head = re.sub(rf"\r\n(Connection|{self.dropped}):[^\r]*", "", head, flags=re.IGNORECASE)
        to_there.write(head.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n").encode("latin-1"))
        sending = asyncio.create_task(_copy(reader, to_there))
        try:
            await _copy(there, writer)
        finally:
            to_there.close()  # first: the rest may be cancelled
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            await _close(to_there)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()


def _kind(head: str) -> str:
    """Return the kind of a request: SQS names it in a header, for S3 it is the HTTP method."""
    target = _TARGET.search(head)
    return target[1] if target else head.split(" ", 1)[0]


def _answer(refusal: Refusal, *, is_json: bool) -> bytes:
    code, message = refusal.code, refusal.message
    if refusal.body is not None:
        body = refusal.body
    elif is_json:
        body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": message})
    else:
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    kind = "application/x-amz-json-1.0" if is_json else "application/xml"
    kind = kind if refusal.body is None else refusal.kind
    lines = (
        f"HTTP/1.1 {refusal.status} Refused",
        *refusal.headers,
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", body)).encode()
