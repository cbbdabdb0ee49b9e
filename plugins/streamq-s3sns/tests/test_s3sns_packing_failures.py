"""Packing that is refused, fails, is switched off or has to wait: nothing else may notice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from s3sns_bucket import count_calls
from s3sns_packing import packed, packs, read, texts, write
from streamq import StreamId
from streamq.driver import ChunkQueue
from streamq.testing import OpenQueue, queue_factory
from streamq_s3sns import S3SnsDriver, S3SnsSettings
from streamq_s3sns._queue import S3SnsQueue


async def test_server_without_tags_stores_segments_and_packs_nothing(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """An append must not fail because of what only packing needs."""
    queue = await open_queue()
    assert isinstance(queue, S3SnsQueue)
    client = queue._store.bucket.client

    class Untagged:
        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        async def put_object(self, **arguments: Any) -> Any:
            answer = await client.put_object(**arguments)
            del answer["ETag"]
            return answer

    queue._store.bucket.client = Untagged()
    written = await write(queue, stream, range(20), ends=True)
    await packed(queue)
    assert packs(s3, settings) == {}
    assert texts(await read(queue, stream)) == written


async def test_unexpected_error_of_a_pack_is_logged(
    open_queue: OpenQueue,
    stream: StreamId,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No caller awaits the task, so its error would surface in the garbage collector."""
    queue = await open_queue()
    assert isinstance(queue, S3SnsQueue)

    async def fail(*_: object, **__: object) -> bool:
        raise LookupError("out of the blue")

    monkeypatch.setattr(queue._store, "pack", fail)
    await write(queue, stream, range(20), ends=True)
    tasks = tuple(queue._packer._tasks)
    await asyncio.gather(*tasks)
    assert len(tasks) == 1
    assert "out of the blue" in caplog.text
    assert queue._packer._packing == 0


def refused(code: str, status: int) -> Exception:
    """Return an error of S3."""
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error: Exception = ClientError(answer, "PutObject")
    return error


def unreachable() -> Exception:
    """Return an error of the client."""
    error: Exception = EndpointConnectionError(endpoint_url="http://127.0.0.1:1")
    return error


def refuse_packs(queue: ChunkQueue, error: Callable[[], Exception]) -> list[str]:
    """Let every pack fail from now on; return a list that gets the keys of those that are tried."""
    assert isinstance(queue, S3SnsQueue)
    client = queue._store.bucket.client
    tried: list[str] = []

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        async def put_object(self, **arguments: Any) -> Any:
            if "IfMatch" in arguments:
                tried.append(arguments["Key"])
                raise error()
            return await client.put_object(**arguments)

    queue._store.bucket.client = Refusing()
    return tried


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (lambda: refused("AccessDenied", 403), False),
        (lambda: refused("NotImplemented", 501), False),
        (lambda: refused("SlowDown", 503), True),
        (unreachable, True),
    ],
)
async def test_refused_pack_does_no_harm(
    open_queue: OpenQueue,
    stream: StreamId,
    s3: Any,
    settings: S3SnsSettings,
    caplog: pytest.LogCaptureFixture,
    error: Callable[[], Exception],
    goes_on: bool,
) -> None:
    """Everything is stored already: a pack that is not permitted is tried once, and logged once."""
    queue = await open_queue()
    tried = refuse_packs(queue, error)
    with caplog.at_level(logging.WARNING, logger="streamq"):
        written = await write(queue, stream, range(10), ends=True)
        await packed(queue)
        other = StreamId(stream.tenant, f"{stream.name}-other")
        await write(queue, other, range(10), ends=True)
        await packed(queue)
    assert len(tried) == (2 if goes_on else 1)
    assert len(caplog.records) == (0 if goes_on else 1)
    assert packs(s3, settings) == {}
    assert texts(await read(queue, stream)) == written


async def test_packing_resumes_after_a_refusal(
    open_queue: OpenQueue, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An expired token is renewed: a worker must not stop packing for the rest of its life."""
    monkeypatch.setattr("streamq_s3sns._packing._REFUSED_SECONDS", 0.0)
    queue = await open_queue()
    tried = refuse_packs(queue, lambda: refused("ExpiredToken", 400))
    for name in ("first", "second"):
        each = StreamId(stream.tenant, f"{stream.name}-{name}")
        await write(queue, each, range(10), ends=True)
        await packed(queue)
    assert len(tried) == 2


async def test_server_without_the_condition_is_not_trusted_to_pack(
    open_queue: OpenQueue, stream: StreamId, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a server could bring a deleted stream back."""
    queue = await open_queue()
    assert isinstance(queue, S3SnsQueue)

    def forget_condition(request: Any, **_: object) -> None:
        del request.headers["If-Match"]

    queue._store.bucket.client.meta.events.register("before-sign.s3.PutObject", forget_condition)
    written = await write(queue, stream, range(10), ends=True)
    await packed(queue)
    other = StreamId(stream.tenant, f"{stream.name}-other")
    await write(queue, other, range(10), ends=True)
    await packed(queue)
    assert "If-Match" in caplog.text
    assert texts(await read(queue, stream)) == written
    calls = count_calls(queue)
    assert len(await read(queue, other)) == 11
    assert calls["get_object"] >= 11


async def test_packing_can_be_switched_off(
    stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """Some buckets lock objects against a second write."""
    without = settings.model_copy(update={"pack": False})
    async with queue_factory(S3SnsDriver, without) as open_without:
        queue = await open_without()
        await write(queue, stream, range(20), ends=True)
        await packed(queue)
    assert packs(s3, settings) == {}


async def test_packs_leave_connections_to_appends(
    stream: StreamId, settings: S3SnsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few connections, large packs over a slow one would make every append wait."""
    few = settings.model_copy(update={"max_connections": 2})
    async with queue_factory(S3SnsDriver, few) as open_few:
        queue = await open_few()
        assert isinstance(queue, S3SnsQueue)
        began = asyncio.Event()
        packing = []

        async def hold(directory: str, *_: object, **__: object) -> bool:
            packing.append(directory)
            began.set()
            await asyncio.Event().wait()
            return True

        monkeypatch.setattr(queue._store, "pack", hold)
        for i in range(4):
            await write(queue, StreamId(stream.tenant, f"{stream.name}-{i}"), range(10), ends=True)
        async with asyncio.timeout(5):
            await began.wait()
        await write(queue, stream, range(10))
        assert len(packing) == 1
        tasks = tuple(queue._packer._tasks)
        await queue._packer.aclose(0.1)
        assert all(task.done() for task in tasks)
        assert queue._packer._packing == 0


async def test_closing_a_queue_completes_its_packs(
    open_queue: OpenQueue, stream: StreamId, s3: Any, settings: S3SnsSettings
) -> None:
    """The stream of a program that ends right afterwards is packed as well."""
    queue = await open_queue()
    await write(queue, stream, range(20), ends=True)
    await queue.aclose()
    assert packs(s3, settings) == {"998": "1 21 1"}
