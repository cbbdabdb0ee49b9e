"""Every operation answers a refusal, and a server that is another one, with one clear error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from aws_refusing_proxy import Refusal, RefusingProxy
from streamq import StreamqError, open_queue
from streamq.driver import ChunkQueue, Entry, StreamId
from streamq.testing import new_stream

PAGE = "<html><head><title>Log in to the network</title></head><body>hotel</body></html>"
REFUSALS = {
    "denied": Refusal("AccessDenied", 403),
    "unknown key": Refusal("InvalidAccessKeyId", 403),
    "no bucket": Refusal("NoSuchBucket", 404),
    "moved": Refusal("PermanentRedirect", 301, headers=("x-amz-bucket-region: eu-west-1",)),
    "archived": Refusal("InvalidObjectState", 403),
    "key is off": Refusal("KMS.DisabledException", 400),
    "account is suspended": Refusal("AllAccessDisabled", 403),
    "a page": Refusal("", 200, body=PAGE),
    "a page that is not there": Refusal("", 404, body=PAGE),
    "a page elsewhere": Refusal("", 302, body=PAGE, headers=("Location: http://127.0.0.1:9/",)),
    "a gateway without a server": Refusal("", 502, body=PAGE),
    "nothing": Refusal("", 200, body="", kind="application/octet-stream"),
    "a list": Refusal("", 200, body="[1, 2]", kind="application/json"),
    "an empty object": Refusal("", 200, body="{}", kind="application/json"),
    "words": Refusal("", 200, body="It works!", kind="text/plain"),
    "cut off": Refusal("", 200, body="<?xml version='1.0'?><ListBucketResult>", kind="text/xml"),
    "an error that is cut off": Refusal("", 500, body="<Error><Code>Internal", kind="text/xml"),
}


async def _listed(queue: ChunkQueue, stream: StreamId) -> object:
    return [each async for each in queue.streams(stream.tenant)]


OPERATIONS: dict[str, Callable[[ChunkQueue, StreamId], Awaitable[object]]] = {
    "append": lambda queue, stream: queue.append(stream, [Entry(1, 1, b"b")]),
    "begin": lambda queue, _: queue.append(new_stream(), [Entry(1, 0, b"b")]),
    "take over": lambda queue, stream: queue.append(stream, [Entry(2, 0, b"b")]),
    "read": lambda queue, stream: queue.read(
        stream, "", max_records=9, max_bytes=99_999, max_wait=0.0
    ),
    "wait": lambda queue, stream: queue.read(
        stream, "", max_records=9, max_bytes=99_999, max_wait=1.0
    ),
    "describe": lambda queue, stream: queue.describe(stream),
    "describe with records": lambda queue, stream: queue.describe(stream, last=9),
    "newest epoch": lambda queue, stream: queue.newest_epoch(stream),
    "list": _listed,
    "sweep": lambda queue, _: queue.sweep(),
    "delete": lambda queue, stream: queue.delete(stream),
}


QUICK = {"denied", "a page"}
LIKE_SQS = {
    ("an empty object", each)
    for each in ("read", "wait", "newest epoch", "list", "sweep", "delete")
} | {("nothing", "delete")}
"""What SQS itself answers when there is nothing to tell."""


@pytest.mark.parametrize(
    "case",
    [each if each in QUICK else pytest.param(each, marks=pytest.mark.full) for each in REFUSALS],
)
async def test_every_operation_answers_a_refusal_with_one_error(
    backend: str, stream: StreamId, proxy: RefusingProxy, case: str
) -> None:
    """Never a group of errors, never one of botocore or of a parser."""
    async with open_queue() as queue:
        await queue.append(stream, [Entry(1, 0, b"a")])
        for name, operation in OPERATIONS.items():
            if name == "newest epoch" and queue.capabilities.fenced:
                continue
            proxy.refusal = REFUSALS[case]
            failed = asyncio.ensure_future(operation(queue, stream))
            await asyncio.wait([failed], timeout=30)
            proxy.refusal = None
            assert failed.done(), name
            error = failed.exception()
            if error is None and (case, name) in LIKE_SQS and backend == "sqs":
                continue
            assert isinstance(error, StreamqError), (name, error or failed.result())
            assert error.backend == backend
            assert "Traceback" not in str(error)
            assert "\n" not in str(error)
