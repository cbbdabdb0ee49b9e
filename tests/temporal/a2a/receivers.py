"""Runs receivers of push notifications on real ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from a2a.types.a2a_pb2 import StreamResponse, TaskPushNotificationConfig, TaskState
from google.protobuf.json_format import Parse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.temporal.a2a.replicas import generations, listen, served

from streamq import Settings, load_settings

_TERMINAL = (
    TaskState.TASK_STATE_COMPLETED,
    TaskState.TASK_STATE_FAILED,
    TaskState.TASK_STATE_CANCELED,
)


def push_settings(**overrides: Any) -> Settings:
    """Return settings that permit receivers of this host, by plain HTTP."""
    usual = {"backend": "memory", "retry_seconds": 5, "idle_seconds": 20, "cancel_seconds": 0.2}
    permitted = {"a2a_push_networks": "127.0.0.0/8", "a2a_push_http": True}
    return load_settings(**usual | permitted | overrides)


@dataclass
class Got:
    """One request of a notification.

    Attributes:
        body: Its bytes.
        headers: Its headers, with names in lower case.
        event: What it says, as the SDK reads it.
    """

    body: bytes
    headers: dict[str, str]
    event: StreamResponse


Answering = Callable[["Receiver", Got], Response]


class Receiver:
    """Takes notifications, and answers as the test wants.

    Args:
        url: Where it is.
        answer: Returns the answer to a notification; by default 204.
    """

    def __init__(self, url: str, answer: Answering | None) -> None:
        self.url = url
        self._answer = answer
        self.requests: list[Got] = []
        """Every request, in order."""
        self.taken: list[Got] = []
        """Those that were answered with success."""
        self.open = 0
        self.most_open = 0
        """Most requests that were open at the same time."""
        self._news = asyncio.Condition()

    @property
    def events(self) -> list[StreamResponse]:
        """The events that were taken, without those that came again."""
        found, seen = [], set[int]()
        for each in self.taken:
            [number] = generations([each.event])
            if number not in seen:
                found.append(each.event)
            seen.add(number)
        return found

    def config(self, **fields: Any) -> TaskPushNotificationConfig:
        """Return a config that names this receiver."""
        return TaskPushNotificationConfig(**{"url": self.url} | fields)

    async def until(self, condition: Callable[[Receiver], bool]) -> None:
        """Wait until what came fulfils a condition."""
        async with asyncio.timeout(30), self._news:
            await self._news.wait_for(lambda: condition(self))

    async def end(self) -> list[StreamResponse]:
        """Wait for the end of the task, and return its events."""
        await self.until(
            lambda found: any(
                each.event.status_update.status.state in _TERMINAL for each in found.taken
            )
        )
        return self.events

    async def take(self, request: Request) -> Response:
        """Take one request."""
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            body = await request.body()
            got = Got(body, dict(request.headers), Parse(body, StreamResponse()))
            answer = Response(status_code=204) if self._answer is None else self._answer(self, got)
            async with self._news:
                self.requests.append(got)
                if 200 <= answer.status_code < 300:
                    self.taken.append(got)
                self._news.notify_all()
            return answer
        finally:
            self.open -= 1


@asynccontextmanager
async def receiving(
    answer: Answering | None = None, *, port: int = 0, path: str = "/hook", **tls: Any
) -> AsyncIterator[Receiver]:
    """Run a receiver; with options of uvicorn for TLS by https, at the name of this host."""
    listener = listen(port)
    host = f"https://localhost:{listener.port}" if tls else f"http://127.0.0.1:{listener.port}"
    receiver = Receiver(f"{host}{path}", answer)
    app = Starlette(routes=[Route(path, receiver.take, methods=["POST"])])
    async with served(app, listener, **tls):
        yield receiver
