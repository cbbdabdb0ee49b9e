"""Lists what streamq offers to enter and to leave, with one use of each.

``test_context_managers.py`` leaves each use at every await and in every manner. It also compares
:data:`USES` and :data:`ELSEWHERE` with what it finds in all modules, so that nothing is forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from streamq import Settings, open_gateway, open_queue, open_reader, open_readers, open_writer
from streamq.driver import QueueOptions, StreamId
from streamq.gateway import create_app, serve
from streamq.gateway._gateway import Gateway
from streamq.gateway._options import GatewayOptions
from streamq.gateway._places import EventPlace
from streamq.opening._open import configured_driver
from streamq.temporal import StreamqPlugin, subscribe, subscribe_topics
from streamq.temporal.workflow_streams import WorkflowStreamClient
from streamq.testing import FaultProxy
from streamq.testing._harness import queue_factory

STREAM = "stream"


@dataclass(frozen=True)
class World:
    """What the uses share.

    Attributes:
        settings: Of a backend whose queues have threads and descriptors of their own, where the
            stream :data:`STREAM` and that of the workflow are open and have one chunk.
        client: A client of Temporal.
        workflow: A workflow that runs until the end of the test.
        plugin: A plugin, and the worker that it runs something around.
    """

    settings: Settings
    client: Client
    workflow: WorkflowHandle[Any, Any]
    plugin: StreamqPlugin
    worker: Worker


Make = Callable[[World], AbstractAsyncContextManager[Any]]
Use = Callable[[Any], Awaitable[object]]


async def _nothing(_: object) -> None:
    """Use it for nothing but being open."""


async def _queue(queue: Any) -> None:
    await queue.describe(StreamId("default", STREAM))


async def _write(writer: Any) -> None:
    await writer.send_chunk("x")
    await writer.flush()


async def _read(events: Any) -> None:
    await anext(events)


async def _read_through(queue: Any) -> None:
    await queue.describe(StreamId("default", STREAM))
    async with open_reader(STREAM, queue=queue) as reader:
        # Without a response that goes on: the gateway would look into the frames of all tasks, to
        # find its server, and what it has looked at is not collected.
        assert await reader.read_batch(max_wait=0)


async def _publish(client: Any) -> None:
    client.topic("topic").publish("x")
    await client.flush()


async def _follow(gateway: Any) -> None:
    follower = await gateway.follow(StreamId("default", STREAM), EventPlace(0))
    try:
        await follower.read(1.0)
    finally:
        gateway.leave(follower)


async def _open(open_queue: Any) -> None:
    await open_queue()
    await open_queue()


def _gateway(world: World) -> AbstractAsyncContextManager[Any]:
    gateway = Gateway(None, world.settings, GatewayOptions())

    @contextlib.asynccontextmanager
    async def running() -> AsyncIterator[Gateway]:
        async with gateway.running():
            yield gateway

    return running()


@contextlib.asynccontextmanager
async def _through_gateway(world: World) -> AsyncIterator[Any]:
    async with (
        serve(create_app(settings=world.settings)) as server,
        open_gateway(server.url, settings=world.settings) as queue,
    ):
        yield queue


def _factory(world: World) -> AbstractAsyncContextManager[Any]:
    driver, options, settings = configured_driver(world.settings)
    assert isinstance(options, QueueOptions)
    return queue_factory(driver, settings)


async def _run_worker(entered: tuple[StreamqPlugin, Worker]) -> None:
    """Do around a worker what the SDK does when it runs one."""
    plugin, worker = entered

    async def run(_: Worker) -> None:
        await asyncio.sleep(0)

    await plugin.run_worker(worker, run)


@contextlib.asynccontextmanager
async def _log(world: World) -> AsyncIterator[Any]:
    client = WorkflowStreamClient.create(world.client, world.workflow.id, settings=world.settings)
    items = client.subscribe(result_type=str)
    assert isinstance(items, AsyncGenerator)
    async with contextlib.aclosing(items):
        yield items


USES: dict[str, tuple[Make, Use]] = {
    "streamq.opening._open.open_queue": (lambda w: open_queue(w.settings), _queue),
    "streamq.opening._open.open_reader": (
        lambda w: open_reader(STREAM, settings=w.settings),
        _read,
    ),
    "streamq.opening._gateway.open_gateway": (_through_gateway, _read_through),
    "streamq.opening._open_readers.open_readers": (
        lambda w: open_readers([STREAM, "other"], prefixes=[STREAM[:3]], settings=w.settings),
        _read,
    ),
    "streamq.opening._open.open_writer": (
        lambda w: open_writer(uuid.uuid4().hex, settings=w.settings),
        _write,
    ),
    "streamq.temporal._subscribe.Subscription": (
        lambda w: subscribe(w.workflow, settings=w.settings),
        _read,
    ),
    "streamq.temporal._subscribe_topics.TopicsSubscription": (
        lambda w: subscribe_topics(w.workflow, ["default", "other"], settings=w.settings),
        _read,
    ),
    "streamq.temporal.workflow_streams._client.WorkflowStreamClient": (
        lambda w: WorkflowStreamClient.create(
            w.client,
            w.workflow.id,
            settings=w.settings,
            batch_interval=timedelta(seconds=5),
        ),
        _publish,
    ),
    "streamq.temporal.workflow_streams._client.WorkflowStreamClient.subscribe": (_log, _read),
    "streamq.temporal._plugin.StreamqPlugin": (
        lambda w: contextlib.nullcontext((w.plugin, w.worker)),
        _run_worker,
    ),
    "streamq.gateway._gateway.Gateway.running": (_gateway, _follow),
    "streamq.gateway._server.serve": (
        lambda w: serve(create_app(settings=w.settings)),
        _nothing,
    ),
    "streamq.testing._fault_proxy.FaultProxy": (
        lambda _: FaultProxy("127.0.0.1", 9),
        _nothing,
    ),
    "streamq.testing._harness.queue_factory": (_factory, _open),
}
"""What is entered, by name, and what is done in it. Each use comes to an end."""

ELSEWHERE: dict[str, str] = {
    # Opened by the functions above.
    "streamq.opening._opening.Opening": "what the functions open_... return",
    "streamq.opening._opening._Closable": "a protocol",
    "streamq.opening._open._using": "part of open_writer and open_reader",
    "streamq.driver.ChunkQueue": "the base of queues",
    "streamq.reading._reader.StreamReader": "open_reader",
    "streamq.reading._readers.StreamReaders": "open_readers",
    "streamq.writing._writer.StreamWriter": "open_writer",
    "streamq.writing._sender.Sender": "part of StreamWriter",
    # Parts of reading through a gateway.
    "streamq.opening._open.open_queue_for": "part of open_reader: open_queue or open_gateway",
    "streamq.over_http._client.GatewayClient": "open_gateway",
    "streamq.over_http._client.GatewayClient.pieces": "open_gateway",
    "streamq.over_http._client.GatewayClient._answer": "open_gateway",
    "streamq.over_http._feed.Feed": "tests/over_http/test_reader.py",
    "streamq.over_http._queue.GatewayQueue": "open_gateway",
    # Parts of the gateway.
    "streamq.gateway._gateway.Gateway": "Gateway.running",
    "streamq.gateway._gateway.Gateway.connection": "holds nothing but an entry in a set",
    "streamq.gateway._hub.Hub": "Gateway.running",
    "streamq.gateway._many._prefix_watchers.PrefixWatchers": "Gateway.running",
    "streamq.gateway._many._response.ManyStreams": "a response, which closes itself",
    "streamq.gateway._own_routes.StreamResponses": "Gateway.running",
    "streamq.gateway._own_routes.StreamResponses.lifespan": "Gateway.running",
    "streamq.gateway._questions.Questions.ask": "holds a turn, which is given back at once",
    "streamq.gateway._authority.Authority": "Gateway.running",
    "streamq.gateway._revocations.Revocations": "Gateway.running",
    "streamq.gateway._hubs.Hubs": "Gateway.running",
    "streamq.gateway._records.Records": "Gateway.running",
    "streamq.gateway._record_reads.RecordReads": "Gateway.running",
    # Keys of issuers: tests/access ends their requests.
    "streamq.access._keys.FileKeys": "has no resource",
    "streamq.access._keys.FixedKeys": "has no resource",
    "streamq.access._keys.KeyRing": "a protocol",
    "streamq.access._remote_keys.RemoteKeys": "tests/access/test_remote_keys.py",
    "streamq.access._verifying.TokenVerifier": "RemoteKeys",
    "streamq.gateway._turns.Turns.turn": "holds a turn, which is given back at once",
    "streamq.gateway._pacer.Steps": "holds a turn, which is given back at once",
    "streamq.gateway._catch_up.CatchUp": "Gateway.running",
    "streamq.gateway._queues.Queues": "Gateway.running",
    # Tasks of A2A.
    "streamq.a2a.server._access.Access": "the lifespan of create_app: test_mounting.py",
    "streamq.a2a.worker._push_sender.NotificationSender": "an activity: test_push_receivers.py",
    "streamq.a2a.worker._task.AgentTask": "code of workflows",
    "streamq.a2a.worker._writing.task_reader": "open_reader",
    "streamq.a2a.server._resources.Resources": "opens one queue, once",
    "streamq.a2a.server._handler.TaskHandler": "Resources",
    "streamq.a2a.server._handler.TaskHandler.on_message_send_stream": "subscribe",
    "streamq.a2a.server._handler.TaskHandler.on_subscribe_to_task": "subscribe",
    # Inside Temporal's worker.
    "streamq.temporal._until_closed.UntilClosed": "Subscription and TopicsSubscription",
    "streamq.temporal.activities._waiting.WaitingActivities": "StreamqPlugin closes it",
    "streamq.temporal.producer._discarding._DiscardingQueue": "has no resource",
    "streamq.driver_parts._temporal_target.leaving_sdk": "holds nothing",
    "streamq.temporal.producer._heartbeats.HeartbeatSender": "ends one task, and awaits that only",
    "streamq.temporal.workflow._activity_stream.ActivityStream": "code of workflows",
    "streamq.temporal.workflow_streams._shared_log.SharedLog": "WorkflowStreamClient",
    # Close writers by close_all; the activity's queue stays open.
    "streamq.temporal.workflow_streams._publication.Publication": "publishing_activity",
    "streamq.temporal.workflow_streams._publication.publishing_activity": "close_all, its writers",
    "streamq.temporal.workflow_streams._topic_stream.TopicStream": "closes one writer",
    "streamq.driver_parts._connect_once.ConnectOnce": "tests/drivers/test_connect_once.py",
    "streamq.driver_parts._guard._GuardedCall": "tests/drivers/test_guard.py",
    "streamq.testing.checks._deadlines.within": "a deadline of the kit, which holds nothing",
    # Drivers: the kit's checks of leaving, on each of them.
    **dict.fromkeys(
        (
            "streamq.memory._MemoryQueue",
            "streamq._sqlite._queue.SqliteQueue",
            "streamq_redis._queue.RedisQueue",
            "streamq_kafka._driver._connected",
            "streamq_kafka._queue.KafkaQueue",
            "streamq_kafka._writing.SharedProducer",
            "streamq_kafka.live_tail._live_tail.LiveTail",
            "streamq_kafka.requests._client.AdaptedClient",
            "streamq_kafka.requests._cluster.Cluster",
            "streamq_kafka.requests._connections.Connections",
            "streamq_postgres._driver._connected",
            "streamq_postgres._queue.PostgresQueue",
            "streamq_postgres.requests._connection_group.SharedConnection",
            "streamq_sqs._queue.SqsQueue",
            "streamq_sqs._requests.SqsRequests",
            "streamq_sqs.reading._readers.Readers",
            "streamq_sqs.reading._receiver.Receiver",
            "streamq_s3sns._queue.S3SnsQueue",
            "streamq_s3sns._packing.Packer",
            "streamq_s3sns.live_tail._listener.NotificationListener",
            "streamq_s3sns.live_tail._publisher.NotificationPublisher",
            "streamq_aws._clients.AwsClients",
            "streamq_aws._credentials.QueueCredentials",
            "streamq_workflow_streams._queue.WorkflowStreamsQueue",
        ),
        "streamq.testing.checks._leaving",
    ),
    "streamq_s3sns.large_objects._hand_over.open_hand_over": "test_hand_over.py",
    "streamq_s3sns.large_objects._hand_over.HandOver": "test_hand_over.py",
    "streamq_s3sns.requests._bucket.Bucket.opened": "closes a body without awaiting",
    "streamq_s3sns.doctor._doctor.open_doctor": "closes AwsClients",
    "streamq_sqs._doctor.open_doctor": "closes SqsRequests",
    # Programs, which end.
    "streamq.cli._sweep._client": "holds nothing: it waits for the SDK at the end of the process",
    "streamq.cli.demo._activities.running": "the demo; a guardian ends its processes in any case",
    # The kits.
    "streamq.testing.applications._recording_writer.RecordingWriter": "open_writer",
    "streamq.testing.applications._recording_writer.recording_writer": "open_writer, in memory",
    "streamq.testing._fault_proxy._Connection": "FaultProxy",
    "streamq.testing._faulty_queue.FaultyQueue": "closes the queue that it is given",
    "streamq.testing._harness.BackendHarness": "stops what its author has started",
    "streamq.testing._server_harness.ServerHarness": "FaultProxy",
    "streamq.testing._server_harness.ServerHarness.slow": "awaits nothing",
    "streamq.testing._server_harness.ServerHarness.hang": "awaits nothing",
    "streamq.testing.checks._base.Checks.backend": "a fixture of pytest",
    "streamq.testing.checks._base.Checks.open_with": "a fixture of pytest",
    "streamq.testing.checks._base.Checks._conditions": "a fixture of pytest",
    "streamq.testing.checks._processes.ProcessChecks._another_process": "part of a check",
}
"""What else can be entered or closed, and where it is covered, or why it needs nothing."""
