"""Measures what a chunk costs, and how soon a client of another replica has it, beside the SDK's.

    python -m benchmarks.a2a               # starts its own Temporal; both on SQLite

One task of 2,000 chunks, sent as fast as they are taken, and one of 100 chunks with pauses. Clients
are subscribed over JSON-RPC. The other server is the SDK's own in its cluster mode
(``VersionedDatabaseTaskStore`` and ``DatabaseTaskEventStream``): its replica that runs the agent
writes the task into a database, and the client's replica asks the database twice a second. With
streamq the client's replica reads the log. The rows of the adapters have the SDK's handler, with
``streamq.a2a.sdk`` instead of the database. All of it is in this process, except for Temporal.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from a2a.client import ClientConfig, ClientFactory
from a2a.helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.cluster import (
    DatabaseTaskEventStream,
    TaskEventStream,
    VersionedDatabaseTaskStore,
    VersionedTaskStore,
)
from a2a.server.events import EventQueue
from a2a.server.request_handlers.default_request_handler_v2 import DefaultRequestHandlerV2
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import TaskUpdater
from a2a.types import (
    AgentCard,
    AgentSkill,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    SubscribeToTaskRequest,
)
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from temporalio.client import Client
from temporalio.worker import Worker

from benchmarks._stats import compare, percentile, show
from streamq import StreamWriter, load_settings
from streamq.a2a import AgentPlugin
from streamq.a2a.sdk import QueueTaskEventStream, QueueTaskStore
from streamq.a2a.server import Agent, create_app
from streamq.devserver import TemporalDevServer
from streamq.driver import QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.temporal import StreamqPlugin, streaming_activity

_CHUNKS, _PACED, _PAUSE_SECONDS = 2_000, 100, 0.02
_OPTIONS = QueueOptions(ttl=timedelta(hours=1))
_SUBSCRIBED_SECONDS = 1.0  # so that the client is subscribed before the first chunk


@streaming_activity
async def burst(stream: StreamWriter[str], plan: str) -> None:
    """Send chunks that say when they were sent: how many, and with which pause."""
    count, pause = plan.split()
    await asyncio.sleep(_SUBSCRIBED_SECONDS)
    for _ in range(int(count)):
        await stream.send_chunk(f"{time.perf_counter()} ")
        await asyncio.sleep(float(pause))


class Burst(AgentExecutor):
    """Sends the same in the process of the server."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Run the agent."""
        assert context.message is not None
        task = new_task_from_user_message(context.message)
        task.id, task.context_id = str(context.task_id), str(context.context_id)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        count, pause = context.get_user_input().split()
        await asyncio.sleep(_SUBSCRIBED_SECONDS)
        for number in range(int(count)):
            part = new_text_part(f"{time.perf_counter()} ")
            await updater.add_artifact([part], artifact_id="default", append=number > 0)
            await asyncio.sleep(float(pause))
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Nobody cancels here."""


@dataclass
class Arrivals:
    """When the chunks of one task were sent and came.

    Attributes:
        sent: Moments of sending.
        came: Moments of arrival.
    """

    sent: list[float]
    came: list[float]

    def cost_ms(self, begin: float, end: float) -> float:
        """Return the time for each chunk of a part of the task, from 0 to 1, as they came."""
        first, last = int(begin * len(self.came)), int(end * len(self.came)) - 1
        return (self.came[last] - self.came[first]) * 1_000 / (last - first)

    def latency_ms(self) -> float:
        """Return the median from sending to arrival."""
        found = [came - sent for sent, came in zip(self.sent, self.came, strict=True)]
        return percentile(found, 0.5) * 1_000


@asynccontextmanager
async def served(app: Starlette, listener: socket.socket) -> AsyncIterator[None]:
    """Serve an application."""
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not running.done():  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    try:
        yield
    finally:
        server.should_exit = True
        await running


def listen() -> tuple[socket.socket, str]:
    """Return a socket of a free port, and its address."""
    found = socket.socket()
    found.bind(("127.0.0.1", 0))
    return found, f"http://127.0.0.1:{found.getsockname()[1]}"


async def arrivals(first: str, second: str, plan: str) -> Arrivals:
    """Start a task with one replica, and subscribe to it with another."""
    found = Arrivals([], [])
    async with httpx.AsyncClient(timeout=300) as http:
        started = ClientConfig(httpx_client=http, streaming=False)
        starter = await ClientFactory(started).create_from_url(first)
        watcher = await ClientFactory(ClientConfig(httpx_client=http)).create_from_url(second)
        message = Message(message_id=uuid.uuid4().hex, role=Role.ROLE_USER, parts=[Part(text=plan)])
        at_once = SendMessageConfiguration(return_immediately=True)
        request = SendMessageRequest(message=message, configuration=at_once)
        [answer] = [each async for each in starter.send_message(request)]
        subscription = SubscribeToTaskRequest(id=answer.task.id)
        async for event in watcher.subscribe(subscription):
            now = time.perf_counter()
            for part in event.artifact_update.artifact.parts:
                if part.text:
                    found.sent.append(float(part.text))
                    found.came.append(now)
    return found


@asynccontextmanager
async def theirs(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """Serve two replicas of the SDK's cluster mode."""
    async with AsyncExitStack() as stack:
        urls = []
        for _ in range(2):
            engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/theirs.db")
            stack.push_async_callback(engine.dispose)
            store, events = VersionedDatabaseTaskStore(engine), DatabaseTaskEventStream(engine)
            await store.initialize()
            await events.initialize()
            urls.append(await stack.enter_async_context(sdk_replica(store, events)))
        yield urls[0], urls[1]


@asynccontextmanager
async def adapted(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """Serve two replicas of the SDK's handler, whose tasks and events are in a queue."""
    settings = load_settings(backend="sqlite")
    async with AsyncExitStack() as stack:
        urls = []
        for _ in range(2):
            driver = SqliteSettings(path=folder / "adapted.db")
            queue = await stack.enter_async_context(await SqliteDriver.open(_OPTIONS, driver))
            store = QueueTaskStore(queue, settings)
            events = QueueTaskEventStream(queue, settings)
            urls.append(await stack.enter_async_context(sdk_replica(store, events)))
        yield urls[0], urls[1]


@asynccontextmanager
async def sdk_replica(store: VersionedTaskStore, events: TaskEventStream) -> AsyncIterator[str]:
    """Serve the SDK's handler, and yield its address."""
    listener, url = listen()
    own = card(url)
    handler = DefaultRequestHandlerV2(Burst(), store, own, event_stream=events)
    routes = [*create_agent_card_routes(own), *create_jsonrpc_routes(handler, "/")]
    async with served(Starlette(routes=routes), listener):
        try:
            yield url
        finally:
            await handler.aclose()


@asynccontextmanager
async def ours(folder: Path) -> AsyncIterator[tuple[str, str]]:
    """Serve two replicas of an agent on Temporal, with a worker."""
    settings = load_settings(backend="sqlite")
    async with AsyncExitStack() as stack:
        server = stack.enter_context(TemporalDevServer())
        client = await Client.connect(server.address)
        driver = SqliteSettings(path=folder / "ours.db")
        queues = [
            await stack.enter_async_context(await SqliteDriver.open(_OPTIONS, driver))
            for _ in range(3)
        ]
        plugins: list[Any] = [StreamqPlugin(queues[0], settings), AgentPlugin()]
        urls = []
        for queue in queues[1:]:
            listener, url = listen()
            agent = Agent(card=card(url), task_queue="bursts", activity=burst, url=url)
            app = create_app(agent, client=client, queue=queue, settings=settings)
            await stack.enter_async_context(served(app, listener))
            urls.append(url)
        await stack.enter_async_context(
            Worker(client, task_queue="bursts", activities=[burst], plugins=plugins)
        )
        yield urls[0], urls[1]


def card(url: str) -> AgentCard:
    """Return the card of both."""
    found = AgentCard(
        name="burst",
        description="Sends chunks",
        version="1",
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="burst", name="Burst", description="Chunks", tags=["burst"])],
    )
    found.capabilities.streaming = True
    interface = found.supported_interfaces.add()
    interface.url, interface.protocol_binding, interface.protocol_version = url, "JSONRPC", "1.0"
    return found


async def measure(rounds: int, chunks: int, *, as_json: bool) -> bool:
    """Run all three, round by round, and print the table."""
    whole: list[list[float]] = [[], [], []]
    growth: list[list[float]] = [[], [], []]
    latency: list[list[float]] = [[], [], []]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with theirs(folder) as bare, ours(folder) as streamq, adapted(folder) as adapters:
            for _ in range(rounds):
                for index, urls in enumerate((bare, streamq, adapters)):
                    fast = await arrivals(*urls, f"{chunks} 0")
                    assert len(fast.came) == chunks, (index, len(fast.came))
                    whole[index].append(fast.cost_ms(0, 1))
                    growth[index].append(fast.cost_ms(0.75, 1) / fast.cost_ms(0, 0.25))
                    paced = await arrivals(*urls, f"{_PACED} {_PAUSE_SECONDS}")
                    latency[index].append(paced.latency_ms())
    title = "A2A: one task, two replicas; bare is the SDK's cluster mode"
    rows = []
    for index, server, cost, delay in ((1, "", 1 / 15, 1 / 20), (2, "adapters: ", None, 1 / 20)):
        rows += [
            compare(f"{server}a chunk of {chunks:,}, ms", whole[0], whole[index], at_most=cost),
            compare(f"{server}the last quarter over the first", growth[0], growth[index]),
            compare(
                f"{server}send_chunk to another replica's client, p50 ms",
                latency[0],
                latency[index],
                at_most=delay,
            ),
        ]
    return show(title, rows, as_json=as_json)


def main() -> int:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chunks", type=int, default=_CHUNKS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    met = asyncio.run(measure(options.rounds, options.chunks, as_json=options.json))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
