"""``streamq sweep``."""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from contextlib import closing
from datetime import timedelta

import pytest
from temporalio.client import Client, ScheduleActionStartWorkflow, WorkflowHandle
from temporalio.service import RPCError

from streamq import SealState, Settings, describe, load_settings, open_writer
from streamq.devserver import TemporalDevServer
from streamq.driver import ChunkQueue, Entry, StreamId

from .command import DATABASE, Cli, Inside, on_terminal, one_error


@pytest.fixture
def settings() -> Settings:
    return load_settings(backend="sqlite")


@pytest.fixture
async def client(temporal: TemporalDevServer) -> Client:
    return await Client.connect(temporal.address)


@pytest.fixture
def there(temporal: TemporalDevServer) -> dict[str, str]:
    """Return settings for the Temporal server."""
    return {"STREAMQ_TEMPORAL_ADDRESS": temporal.address}


AWAY = {"STREAMQ_TEMPORAL_ADDRESS": "127.0.0.1:1", "STREAMQ_RETRY_SECONDS": "0"}


async def orphan(queue: ChunkQueue, settings: Settings, client: Client, prefix: str = "wf") -> str:
    """Create a stream that no producer will end, and return its name."""
    handle: WorkflowHandle[object, object] = await client.start_workflow(
        "Anything", id=f"{prefix}-{uuid.uuid4().hex[:8]}", task_queue="nobody"
    )
    await handle.terminate()
    name = f"{handle.id}/{handle.first_execution_run_id}/default"
    await abandon(queue, settings, name)
    return name


async def abandon(queue: ChunkQueue, settings: Settings, name: str) -> None:
    writer = await open_writer(name, queue=queue, settings=settings, epoch=1_000_001)
    await writer.send_chunk("one")
    await writer.aclose()


def stored(cli: Cli) -> list[str]:
    """Return the streams that use storage, expired or not."""
    with closing(sqlite3.connect(cli.directory / DATABASE)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM streams ORDER BY name")]


async def is_open(queue: ChunkQueue, settings: Settings, name: str) -> bool:
    return (await describe(name, queue=queue, settings=settings)).seal is None


async def test_it_seals_the_streams_of_a_dead_worker_and_reports_them(
    cli: Cli, queue: ChunkQueue, settings: Settings, client: Client, there: dict[str, str]
) -> None:
    """After a crash, the output has to show what remained, what was done, and why."""
    name = await orphan(queue, settings, client)
    looked = cli.run("sweep", "--grace", "0", "--dry-run", env=there)
    assert await is_open(queue, settings, name)
    done = cli.run("sweep", "--grace", "0s", env=there)
    assert (looked.code, looked.err) == (done.code, done.err) == (0, "")
    for shown in (looked, done):
        assert f"\n{name}   sealed" in shown.out
        assert "ended (TERMINATED)" in shown.out
    assert "would be" in looked.out
    assert "nothing was changed" in looked.out
    assert "1 streams of tenant default on sqlite" in done.out
    seal = (await describe(name, queue=queue, settings=settings)).seal
    assert seal is not None
    assert (seal.state, seal.error_type) == (SealState.ERROR, "ProducerGone")
    tail = cli.run("tail", name)
    assert (tail.code, tail.out) == (1, "one")


async def test_json_has_all_results(
    cli: Cli, queue: ChunkQueue, settings: Settings, client: Client, there: dict[str, str]
) -> None:
    """A script needs numbers, and the names of streams that need attention."""
    chosen = settings.model_copy(update={"tenant": "shop"})
    name = await orphan(queue, chosen, client, "order")
    await orphan(queue, chosen, client, "invoice")
    arguments = ["sweep", "--tenant", "shop", "--prefix", "order-", "--grace", "0", "--json"]
    account = json.loads(cli.run(*arguments, env=there).out)
    assert account.pop("findings") == [
        {
            "stream": name,
            "done": "sealed",
            "reason": f"workflow {name.split('/')[0]!r} ended (TERMINATED)",
        }
    ]
    assert account == {
        "tenant": "shop",
        "prefix": "order-",
        "backend": "sqlite",
        "dry_run": False,
        "streams": 1,
        "ended": 0,
        "open": 0,
        "running": 0,
        "sealed": 1,
        "deleted": 0,
        "kept": 0,
        "failed": 0,
        "expired": 0,
        "problems": [],
        "notes": [],
    }


async def test_without_temporal_the_rest_is_done_and_the_exit_code_shows_it(
    cli: Cli, queue: ChunkQueue, settings: Settings
) -> None:
    """An outage must not look like success, and need not stop the rest of the sweep."""
    name = f"wf/{uuid.uuid4()}/default"
    await abandon(queue, settings, name)
    gone = StreamId("default", "gone")
    await queue.append(gone, [Entry(1, 0, b"x")], ttl=timedelta(microseconds=1))
    assert stored(cli) == ["gone", name]
    away = cli.run("sweep", "--unknown", env=AWAY)
    assert f"\n{name}   kept" in away.out
    assert stored(cli) == [name]
    assert "cannot ask Temporal about workflow 'wf'" in one_error(away)
    unasked = cli.run("sweep", "--no-temporal", env=AWAY)
    assert (unasked.code, unasked.err) == (0, "")
    assert f"\n{name}   kept" in unasked.out
    assert await is_open(queue, settings, name)


async def test_temporal_is_not_needed_without_streams_of_workflows(
    cli: Cli, queue: ChunkQueue, settings: Settings
) -> None:
    """Users of streamq without workflows have no Temporal server."""
    await abandon(queue, settings, "plain")
    done = cli.run("sweep", env=AWAY)
    assert (done.code, done.err) == (0, "")
    assert "0 of running producers, 1 open" in done.out


async def test_a_terminal_shows_progress_and_colours(
    cli: Cli, queue: ChunkQueue, settings: Settings, client: Client, there: dict[str, str]
) -> None:
    """A sweep of thousands of streams takes a while, and users want to see progress."""
    name = await orphan(queue, settings, client)
    shown = on_terminal(cli, "sweep", "--grace", "0", env={"COLORTERM": "1", **there})
    assert "looking at streams" in shown
    assert name in shown
    assert "\x1b[32msealed" in shown


async def test_a_schedule_is_created_updated_and_deleted(
    cli: Cli, client: Client, there: dict[str, str]
) -> None:
    """The same command may be run by every deployment."""
    scope = ["--tenant", uuid.uuid4().hex, "--prefix", "a/"]
    handle = client.get_schedule_handle(f"streamq-sweep-{scope[1]}-a/")
    made = cli.run("sweep", *scope, "--schedule", "10m", "--task-queue", "q", env=there)
    assert made.out == f"schedule {handle.id} created: every 0:10:00 on task queue q\n"
    options = ["--schedule", "2h", "--task-queue", "other", "--grace", "5m", "--unknown"]
    changed = cli.run("sweep", *scope, *options, env=there)
    assert changed.out == f"schedule {handle.id} updated: every 2:00:00 on task queue other\n"
    found = (await handle.describe()).schedule
    assert [interval.every for interval in found.spec.intervals] == [timedelta(hours=2)]
    action = found.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    assert (action.workflow, action.task_queue) == ("streamq.Sweep", "other")
    [request] = await client.data_converter.decode(action.args)
    assert request == {
        "tenant": scope[1],
        "prefix": "a/",
        "grace_seconds": 300.0,
        "unknown": True,
        "delete_persistent_seconds": None,
        "dry_run": False,
    }
    gone = cli.run("sweep", *scope, "--unschedule", env=there)
    assert gone.out == f"schedule {handle.id} deleted\n"
    with pytest.raises(RPCError, match="not found"):
        await handle.describe()
    again = cli.run("sweep", *scope, "--unschedule", env=there)
    assert (again.code, again.out) == (0, f"schedule {handle.id} does not exist\n")
    away = cli.run("sweep", "--schedule", "1m", "--task-queue", "q", env=AWAY)
    assert "cannot create schedule 'streamq-sweep-default'" in one_error(away)


def test_contradictory_options_are_refused(inside: Inside) -> None:
    """Contradictions are reported before anything is changed."""
    wrong = {
        "'soon' is not a duration": ["--grace", "soon"],
        "'1y' is not a duration": ["--delete-persistent", "1y"],
        "'99999999999d' is not a duration": ["--schedule", "99999999999d"],
        "--schedule and --task-queue need each other": ["--schedule", "1m"],
        "need each other": ["--task-queue", "q"],
        "contradict": ["--schedule", "1m", "--task-queue", "q", "--unschedule"],
        "remove --no-temporal": ["--unschedule", "--no-temporal"],
        "tenant 'a b'": ["--tenant", "a b"],
        "too often": ["--schedule", "0s", "--task-queue", "q"],
    }
    shown = inside.run_each([["sweep", *arguments] for arguments in wrong.values()])
    for expected, finished in zip(wrong, shown, strict=True):
        assert expected in one_error(finished)
    assert not os.listdir(inside.directory)
    memory = inside.run("sweep", env={"STREAMQ_BACKEND": "memory"})
    assert "does not offer cross_process" in one_error(memory)
