"""Runs replicas of an agent on real ports, and clients of the SDK that talk to them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import uvicorn
from a2a.client import (
    AuthInterceptor,
    ClientCallContext,
    ClientCallInterceptor,
    ClientConfig,
    CredentialService,
)
from a2a.client.client import Client as A2AClient
from a2a.client.client_factory import ClientFactory
from a2a.types.a2a_pb2 import (
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
)
from temporalio.client import Client
from temporalio.worker import Worker
from tests.temporal.a2a.agents import (
    Extended,
    Flaky,
    Pair,
    Planner,
    Quiz,
    Relay,
    card,
    write,
    write_answer,
    write_values,
)

from streamq import Settings
from streamq.a2a import AgentPlugin
from streamq.a2a.server import Agent, TaskHandler, add_to_grpc_server, create_app
from streamq.a2a.server._resources import Resources
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin

TRANSPORTS = ("JSONRPC", "HTTP+JSON", "GRPC")


@asynccontextmanager
async def sdk_client(
    url: str,
    transport: str = "JSONRPC",
    *,
    token: str = "",
    interceptor: ClientCallInterceptor | None = None,
    **options: Any,
) -> AsyncIterator[A2AClient]:
    """Open a client of the SDK for an agent, which sends a token as the card says."""
    async with httpx.AsyncClient(timeout=60) as http:
        config = ClientConfig(
            supported_protocol_bindings=[transport],
            httpx_client=http,
            grpc_channel_factory=grpc.aio.insecure_channel,
            **options,
        )
        auth = interceptor or AuthInterceptor(_Credential(token))
        client = await ClientFactory(config).create_from_url(url, interceptors=[auth])
        async with client:
            yield client


class _Credential(CredentialService):
    def __init__(self, token: str) -> None:
        self._token = token

    async def get_credentials(
        self, security_scheme_name: str, context: ClientCallContext | None
    ) -> str | None:
        return self._token or None


@dataclass
class Replica:
    """One process' worth of an agent's server.

    Attributes:
        agent: The agent, with the addresses of this replica unless the test has others.
        url: Where it is.
    """

    agent: Agent
    url: str

    def client(
        self, transport: str = "JSONRPC", **options: Any
    ) -> AbstractAsyncContextManager[A2AClient]:
        """Open a client of the SDK, as anybody would."""
        return sdk_client(self.url, transport, **options)

    def starter(
        self, transport: str = "JSONRPC", **options: Any
    ) -> AbstractAsyncContextManager[A2AClient]:
        """Open a client that does not stream, and gets the answer to a message at once."""
        return self.client(transport, streaming=False, **options)


class Stage:
    """A worker for the agents of the tests, and replicas that serve them.

    Args:
        client: A client of Temporal.
        queue: Where streams are.
        settings: Limits.
    """

    def __init__(self, client: Client, queue: ChunkQueue, settings: Settings) -> None:
        self.client, self.queue, self.settings = client, queue, settings
        self.task_queue = f"tq-{uuid.uuid4().hex}"
        self._stack = AsyncExitStack()

    def worker(self) -> Worker:
        return Worker(
            self.client,
            task_queue=self.task_queue,
            workflows=[Planner, Pair, Quiz, Relay, Flaky, Extended],
            activities=[write, write_answer, write_values],
            plugins=[StreamqPlugin(self.queue, self.settings), AgentPlugin()],
        )

    async def replica(self, **options: Any) -> Replica:
        """Serve an agent over all transports on free ports."""
        name = options.pop("name", self.task_queue)
        settings = options.pop("settings", self.settings)
        authorize = options.pop("authorize", None)
        options = dict[str, Any](card=card(name), task_queue=self.task_queue) | options
        if "workflow" not in options:
            options.setdefault("activity", write)
        listener = listen()
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        url = f"http://127.0.0.1:{listener.port}"
        given = dict[str, Any](url=url, grpc_url=f"127.0.0.1:{port}", heartbeat_seconds=2)
        agent = Agent(**given | options)
        connections = dict[str, Any](client=self.client, queue=self.queue, settings=settings)
        app = create_app(agent, authorize=authorize, **connections)
        handler = TaskHandler(agent, Resources(agent, **connections), authorize=authorize)
        add_to_grpc_server(server, handler)
        await server.start()
        self._stack.push_async_callback(handler.aclose)
        self._stack.push_async_callback(server.stop, 0)
        await self._stack.enter_async_context(served(app, listener))
        return Replica(agent, url)

    async def aclose(self) -> None:
        await self._stack.aclose()


@dataclass
class Listener:
    socket: Any
    port: int


def listen(port: int = 0) -> Listener:
    """Bind a port of this host; by default a free one."""
    import socket

    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(("127.0.0.1", port))
    return Listener(found, found.getsockname()[1])


@asynccontextmanager
async def served(app: Any, listener: Listener, **options: Any) -> AsyncIterator[None]:
    """Serve an application, with options of uvicorn."""
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, **options)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener.socket]))
    try:
        while not server.started and not running.done():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        yield
    finally:
        server.should_exit = True
        await running


def request(text: str, *, at_once: bool = False, **fields: Any) -> SendMessageRequest:
    """Return a request with a message of one text."""
    message = Message(
        message_id=uuid.uuid4().hex, role=Role.ROLE_USER, parts=[Part(text=text)], **fields
    )
    configuration = SendMessageConfiguration(return_immediately=at_once)
    return SendMessageRequest(message=message, configuration=configuration)


async def sent(client: A2AClient, wanted: SendMessageRequest) -> Task:
    """Send a message without streaming, and return the task."""
    [answer] = [each async for each in client.send_message(wanted)]
    return answer.task


async def streamed(client: A2AClient, wanted: SendMessageRequest) -> list[StreamResponse]:
    """Send a message, and return the whole stream."""
    return [each async for each in client.send_message(wanted)]


class Watcher:
    """Collects what a subscription or a stream yields, in a task of its own.

    Args:
        events: The events.
    """

    def __init__(self, events: AsyncIterator[StreamResponse]) -> None:
        self._events = events
        self.seen: list[StreamResponse] = []
        self._news = asyncio.Condition()
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async for each in self._events:
            async with self._news:
                self.seen.append(each)
                self._news.notify_all()

    async def until(self, condition: Callable[[list[StreamResponse]], bool]) -> None:
        """Wait until what was seen fulfils a condition."""
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: condition(self.seen))

    async def end(self) -> list[StreamResponse]:
        """Wait for the end, and return everything."""
        async with asyncio.timeout(30):
            await self._task
        return self.seen

    def stop(self) -> None:
        """Break the connection."""
        self._task.cancel()


def watch(client: A2AClient, task_id: str) -> Watcher:
    """Subscribe to a task."""
    return Watcher(client.subscribe(SubscribeToTaskRequest(id=task_id)))


def text_of(events: list[StreamResponse], artifact_id: str = "default") -> str:
    """Return the text that a client has of an artifact after these events."""
    found = ""
    for each in events:
        for artifact in each.task.artifacts:
            if artifact.artifact_id == artifact_id:
                found = "".join(part.text for part in artifact.parts)
        update = each.artifact_update
        if each.HasField("artifact_update") and update.artifact.artifact_id == artifact_id:
            text = "".join(part.text for part in update.artifact.parts)
            found = found + text if update.append else text
    return found


def generations(events: list[StreamResponse]) -> list[int]:
    """Return the numbers of events."""
    found = []
    for each in events:
        kind = each.WhichOneof("payload")
        found.append(int(getattr(each, str(kind)).metadata["generation"]))
    return found
