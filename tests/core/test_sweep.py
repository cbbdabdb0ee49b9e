"""Sweeping with any judge of workflows: which streams are sealed, deleted or kept."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from pydantic import SecretStr
from tests.kit.log_driver import Log, LogQueue

from streamq import (
    Chunk,
    ConfigurationError,
    Event,
    FencedError,
    OnRetry,
    Reset,
    Seal,
    SealedError,
    Settings,
    StreamNotFoundError,
    StreamWriter,
    describe,
    load_settings,
    open_reader,
    open_writer,
)
from streamq._executions import Execution, execution_of
from streamq._sweep import (
    SWEEPER,
    Judge,
    Life,
    SweepFinding,
    SweepRequest,
    SweepSummary,
    Verdict,
    judge_nothing,
    sweep,
)
from streamq.driver import ChunkQueue, Entry, QueueOptions, StreamId
from streamq.testing import FaultyQueue

RUN = "0189c3a5-7b1c-7d2e-8f00-123456789abc"
NAME = f"orders/7/{RUN}/default"
EPOCH = 1_700_000_000_000_001


def judge(*lives: Life) -> Judge:
    """Give these verdicts one after the other, the last one for ever."""
    left = list(lives)

    async def judged(execution: Execution) -> Verdict:
        life = left.pop(0) if len(left) > 1 else left[0]
        return Verdict(life, f"{execution} is {life.value}")

    return judged


async def abandon(queue: ChunkQueue, settings: Settings, name: str = NAME) -> None:
    """Write a stream as a producer that never comes back."""
    writer = await open_writer(name, queue=queue, settings=settings, epoch=EPOCH)
    for chunk in ("one", "two"):
        await writer.send_chunk(chunk)
    await writer.aclose()


async def read(queue: ChunkQueue, settings: Settings, name: str = NAME) -> list[Event]:
    async with open_reader(name, queue=queue, settings=settings) as reader:
        return [event async for event in reader]


def story_of(events: list[Event]) -> list[object]:
    """The story in short: values, RESET and the seal's state."""
    story: list[object] = []
    for event in events:
        if isinstance(event, Chunk):
            story.append(event.value)
        elif isinstance(event, Reset):
            story.append("RESET")
        elif isinstance(event, Seal):
            story.append(event.state.name)
    return story


def done(summary: SweepSummary) -> dict[str, str]:
    return {finding.stream: finding.done for finding in summary.findings}


async def test_a_stream_whose_workflow_has_ended_ends_for_every_reader_at_once(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A reader must not wait for its idle deadline when it is known that nothing will come."""
    await abandon(queue, settings)
    reading = asyncio.create_task(read(queue, settings))
    summary = await sweep(queue, settings, SweepRequest(), judge(Life.OVER))
    events = await reading
    assert story_of(events) == ["one", "two", "ERROR"]
    seal = events[-1]
    assert isinstance(seal, Seal)
    assert seal.error_type == "ProducerGone"
    assert "workflow 'orders/7' is over" in seal.message
    assert not seal.retryable
    assert story_of(await read(queue, settings)) == ["one", "two", "ERROR"]  # a late reader
    assert (summary.streams, summary.sealed) == (1, 1)
    again = await sweep(queue, settings, SweepRequest(), judge(Life.OVER))
    assert (again.ended, again.sealed, again.findings) == (1, 0, [])


async def test_a_stream_that_was_only_opened_is_sealed_too(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A producer may be killed before its first chunk; its readers wait all the same."""
    await (await open_writer(NAME, queue=queue, settings=settings, epoch=EPOCH)).aclose()
    await sweep(queue, settings, SweepRequest(), judge(Life.OVER))
    assert story_of(await read(queue, settings)) == ["ERROR"]


async def test_a_chunk_that_arrived_in_part_is_not_delivered(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A producer may be killed in the middle of a large chunk; half of it must not be shown."""
    limit = 4_096
    narrow = dataclasses.replace(queue.capabilities, max_record_bytes=limit)
    queue = FaultyQueue(queue, capabilities=narrow)
    whole = f"{NAME}-whole"
    async with open_writer(whole, queue=queue, settings=settings, epoch=EPOCH) as writer:
        await writer.send_chunk("one")
        await writer.flush()
        await writer.send_chunk(b"x" * (limit + 1_000))
    id_whole, id_cut = StreamId(settings.tenant, whole), StreamId(settings.tenant, NAME)
    stored = await queue.read(
        id_whole, "", max_records=3, max_bytes=2**40, max_wait=0
    )  # OPEN, the first chunk, and part of the second
    entries = [Entry(EPOCH, i, record.data) for i, record in enumerate(stored)]
    await queue.append(id_cut, entries)
    await queue.delete(id_whole)
    await sweep(queue, settings, SweepRequest(), judge(Life.OVER))
    assert story_of(await read(queue, settings)) == ["one", "ERROR"]


async def test_a_stream_whose_workflow_may_still_run_is_kept(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Sealing a stream that is still written would destroy work; keeping one is harmless."""
    await abandon(queue, settings)
    running = await sweep(queue, settings, SweepRequest(), judge(Life.RUNNING))
    assert (running.running, running.findings) == (1, [])
    unsure = await sweep(queue, settings, SweepRequest(), judge(Life.UNSURE))
    assert unsure.findings == [SweepFinding(NAME, "kept", "workflow 'orders/7' is unsure")]
    unasked = await sweep(queue, settings, SweepRequest(), judge_nothing)
    assert done(unasked) == {NAME: "kept"}
    assert (await describe(NAME, queue=queue, settings=settings)).seal is None


@pytest.mark.parametrize(
    "name", ["plain", "a/b/c", f"{RUN}/default", f"/{RUN}/default", f"wf/{RUN}/", f"wf/{RUN[1:]}/x"]
)
async def test_streams_of_no_workflow_are_kept(
    queue: ChunkQueue, settings: Settings, name: str
) -> None:
    """A writer outside Temporal may come back any day."""
    assert execution_of(name) is None
    await abandon(queue, settings, name)
    summary = await sweep(queue, settings, SweepRequest(), judge(Life.OVER))
    assert (summary.open, summary.sealed) == (1, 0)


async def test_an_attempt_that_begins_meanwhile_wins(queue: ChunkQueue, settings: Settings) -> None:
    """A workflow may be reset during the sweep's query; its new attempt must not be harmed."""
    await abandon(queue, settings)
    writers: list[StreamWriter] = []

    async def slow(execution: Execution) -> Verdict:
        if not writers:
            writers.append(
                await open_writer(NAME, queue=queue, settings=settings, epoch=EPOCH + 1_000)
            )
        return Verdict(Life.OVER, "over, when it was queried")

    summary = await sweep(queue, settings, SweepRequest(), slow)
    assert done(summary) == {NAME: "kept"}
    await writers[0].send_chunk("new")
    await writers[0].finish()
    await writers[0].aclose()
    assert story_of(await read(queue, settings)) == ["one", "two", "RESET", "new", "END"]


async def test_a_workflow_that_runs_again_after_the_fence_continues(
    queue: ChunkQueue, settings: Settings
) -> None:
    """The last check comes after old attempts are fenced, so that only a new one can be harmed."""
    await abandon(queue, settings)
    summary = await sweep(queue, settings, SweepRequest(), judge(Life.OVER, Life.RUNNING))
    assert done(summary) == {NAME: "kept"}
    with pytest.raises(FencedError):
        await open_writer(NAME, queue=queue, settings=settings, epoch=EPOCH)
    async with open_writer(NAME, queue=queue, settings=settings, epoch=EPOCH + 1_000) as writer:
        await writer.send_chunk("new")
    assert story_of(await read(queue, settings)) == ["one", "two", "RESET", "new", "END"]


async def test_a_stream_that_is_being_sealed_keeps_its_own_ending(
    queue: ChunkQueue, settings: Settings
) -> None:
    """An activity may seal its stream just after its workflow ended: its ending is better."""
    writer = await open_writer(NAME, queue=queue, settings=settings, epoch=EPOCH)

    async def slow(execution: Execution) -> Verdict:
        await writer.cancel("by the activity")
        return Verdict(Life.OVER, "over")

    summary = await sweep(queue, settings, SweepRequest(), slow)
    await writer.aclose()
    assert done(summary) == {NAME: "kept"}
    assert story_of(await read(queue, settings)) == ["CANCELLED"]


async def test_many_sweeps_at_once_seal_a_stream_once(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A schedule and a person may sweep at the same time."""
    names = [f"wf-{i}/{RUN}/default" for i in range(40)]
    for name in names:
        await abandon(queue, settings, name)
    sweeps = [sweep(queue, settings, SweepRequest(), judge(Life.OVER)) for _ in range(3)]
    summaries = await asyncio.gather(*sweeps)
    assert all(summary.failed == 0 for summary in summaries)
    assert sum(summary.sealed for summary in summaries) == len(names)
    for name in names:
        assert story_of(await read(queue, settings, name)) == ["one", "two", "ERROR"]


async def test_a_later_writer_learns_that_a_sweep_sealed_the_stream(
    queue: ChunkQueue, settings: Settings
) -> None:
    """The Temporal layer has to distinguish the sweep's seal from that of another call."""
    await abandon(queue, settings)
    await sweep(queue, settings, SweepRequest(), judge(Life.OVER))
    with pytest.raises(SealedError) as caught:
        await open_writer(NAME, queue=queue, settings=settings, epoch=EPOCH + 1_000)
    assert caught.value.producer == SWEEPER


async def test_an_ended_stream_is_kept_for_the_shorter_time(
    queue: ChunkQueue, settings: Settings
) -> None:
    """An ended stream need not take room as long as an open one; a sweep's ending counts too."""
    chosen = settings.model_copy(update={"ttl_seconds": 1_000.0, "sealed_ttl_seconds": 10.0})
    await abandon(queue, chosen)
    async with open_writer("own", queue=queue, settings=chosen) as writer:
        await writer.send_chunk("x")
        await writer.flush()
        before = (await describe("own", queue=queue, settings=chosen)).expires_in
    assert before is not None
    assert before > timedelta(seconds=900)
    await sweep(queue, chosen, SweepRequest(), judge(Life.OVER))
    for name in ("own", NAME):
        left = (await describe(name, queue=queue, settings=chosen)).expires_in
        assert left is not None
        assert timedelta(seconds=5) < left <= timedelta(seconds=10), name


async def test_a_dry_run_reports_and_changes_nothing(queue: ChunkQueue, settings: Settings) -> None:
    """Users check first what a sweep would do."""
    await abandon(queue, settings)
    before = await queue.describe(StreamId(settings.tenant, NAME), last=9)
    summary = await sweep(queue, settings, SweepRequest(dry_run=True), judge(Life.OVER))
    assert done(summary) == {NAME: "sealed"}
    assert (summary.dry_run, summary.expired) == (True, None)
    after = await queue.describe(StreamId(settings.tenant, NAME), last=9)
    assert after.last == before.last


async def test_tenant_and_prefix_bound_a_sweep(queue: ChunkQueue, settings: Settings) -> None:
    """The cleanup of one team must not end the streams of another."""
    other = settings.model_copy(update={"tenant": "other"})
    await abandon(queue, settings)
    await abandon(queue, other)
    await abandon(queue, other, f"invoices/{RUN}/default")
    request = SweepRequest(tenant="other", prefix="orders/")
    summary = await sweep(queue, settings, request, judge(Life.OVER))
    assert (summary.tenant, summary.prefix, summary.streams) == ("other", "orders/", 1)
    assert done(summary) == {NAME: "sealed"}
    assert (await describe(NAME, queue=queue, settings=settings)).seal is None


async def test_expired_streams_are_removed(settings: Settings, queue: ChunkQueue) -> None:
    """Some backends remove nothing by themselves."""
    short = timedelta(microseconds=1)
    await queue.append(StreamId("any", "gone"), [Entry(1, 0, b"x")], ttl=short)
    summary = await sweep(queue, settings, SweepRequest(), judge(Life.OVER))
    assert summary.expired == 1


async def test_a_damaged_stream_does_not_keep_the_others_from_being_swept(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A stream that cannot be judged is reported and kept."""
    await abandon(queue, settings)
    await queue.append(StreamId(settings.tenant, f"bad/{RUN}/x"), [Entry(1, 0, b"damaged")])
    summary = await sweep(queue, settings, SweepRequest(), judge(Life.OVER))
    assert done(summary) == {NAME: "sealed", f"bad/{RUN}/x": "failed"}
    assert "record" in summary.findings[0].reason


@pytest.mark.parametrize(
    "request_",
    [
        SweepRequest(grace_seconds=-1),
        SweepRequest(grace_seconds=float("nan")),
        SweepRequest(delete_persistent_seconds=-1),
        SweepRequest(tenant="a*"),
    ],
)
async def test_an_invalid_request_is_refused(
    queue: ChunkQueue, settings: Settings, request_: SweepRequest
) -> None:
    """Where streams are deleted, an error is better than a guess."""
    with pytest.raises(ConfigurationError):
        await sweep(queue, settings, request_, judge(Life.OVER))


class Persistence:
    """A Valkey, and the way to take a stream's time to live away there."""

    def __init__(self, queue: ChunkQueue, url: str) -> None:
        self.queue = queue
        self._url = url

    async def persist(self, name: str) -> None:
        import redis.asyncio

        from streamq_redis._naming import KeySpace

        async with redis.asyncio.Redis.from_url(self._url) as client:
            assert await client.persist(KeySpace("streamq").key(StreamId("default", name)))


@pytest.fixture
async def valkey() -> AsyncIterator[Persistence]:
    reason = "the plugin streamq-redis is not installed"
    pytest.importorskip("streamq_redis", reason=reason)
    from streamq_redis import RedisDriver, RedisSettings
    from streamq_redis.embedded import EmbeddedRedis

    options = QueueOptions(ttl=timedelta(minutes=5))
    with EmbeddedRedis() as server:
        chosen = RedisSettings(url=SecretStr(server.url))
        async with await RedisDriver.open(options, chosen) as queue:
            yield Persistence(queue, server.url)


async def test_streams_that_never_expire_are_reported_and_deleted_only_on_demand(
    valkey: Persistence,
) -> None:
    """Their time to live was removed; only a person can know whether that was on purpose."""
    queue, settings = valkey.queue, load_settings(backend="redis")
    async with open_writer("kept", queue=queue, settings=settings) as writer:
        await writer.send_chunk("for ever")
    await abandon(queue, settings, "plain")
    await abandon(queue, settings)
    for name in ("kept", "plain", NAME):
        await valkey.persist(name)

    async def swept(life: Life, **options: object) -> dict[str, str]:
        request = SweepRequest(**options)  # type: ignore[arg-type]
        return done(await sweep(queue, settings, request, judge(life)))

    everything = dict.fromkeys(["kept", "plain", NAME], "kept")
    assert await swept(Life.RUNNING) == everything
    # Of an hour's age none can be, and what runs is never deleted.
    assert await swept(Life.RUNNING, delete_persistent_seconds=3_600) == everything
    expected = everything | {"kept": "deleted", "plain": "deleted"}
    for options in ({"dry_run": True}, {}):
        assert await swept(Life.RUNNING, delete_persistent_seconds=0, **options) == expected
    for name in ("kept", "plain"):
        with pytest.raises(StreamNotFoundError):
            await describe(name, queue=queue, settings=settings)
    # Ended, it has a time to live again.
    assert await swept(Life.OVER) == {NAME: "sealed"}
    assert (await describe(NAME, queue=queue, settings=settings)).expires_in is not None


async def test_a_persistent_stream_that_is_written_to_is_not_deleted(
    valkey: Persistence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its age is that of the newest attempt, and the last check comes just before the deletion."""
    queue, settings = valkey.queue, load_settings(backend="redis")
    await abandon(queue, settings, "plain")
    await valkey.persist("plain")
    read_on = queue.read

    async def meanwhile(*args: object, **options: object) -> object:
        found = await read_on(*args, **options)  # type: ignore[arg-type]
        if not found:
            await abandon_again()
        return found

    async def abandon_again() -> None:
        writer = await open_writer("plain", queue=queue, settings=settings, on_retry=OnRetry.RESUME)
        await writer.aclose()

    monkeypatch.setattr(queue, "read", meanwhile)
    request = SweepRequest(delete_persistent_seconds=0)
    assert done(await sweep(queue, settings, request, judge(Life.OVER))) == {"plain": "kept"}
    assert (await describe("plain", queue=queue, settings=settings)).offset == 2
    assert (await describe("plain", queue=queue, settings=settings)).seal is None


async def test_backend_that_does_not_fence_is_no_failure_of_the_sweep(settings: Settings) -> None:
    """A nightly job that fails every night is switched off, and then nothing is removed."""
    queue = LogQueue(Log())
    await abandon(queue, settings)
    summary = await sweep(queue, settings, SweepRequest(), judge(Life.OVER))
    assert (summary.problems, summary.failed, summary.sealed) == ([], 0, 0)
    assert "does not fence" in summary.notes[0]
    await queue.aclose()
