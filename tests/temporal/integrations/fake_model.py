"""Serves a model over HTTP that says what a test wrote, and fails when the test wants it to.

It speaks the parts of three protocols that the integrations use: OpenAI's Responses and Chat
Completions, and Gemini's ``streamGenerateContent``. All stream server-sent events.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Events = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Say:
    """A reply of text.

    Attributes:
        text: Sent word by word.
        fail_after: Break the connection after this many deltas.
        wait: Called with the number of deltas sent, before each further one.
    """

    text: str
    fail_after: int | None = None
    wait: Callable[[int], Any] | None = None

    @property
    def deltas(self) -> list[str]:
        """What is sent, piece by piece."""
        words = self.text.split(" ")
        return [word + " " for word in words[:-1]] + words[-1:]


@dataclass(frozen=True)
class CallTool:
    """A reply that calls a tool without arguments."""

    name: str


@dataclass
class FakeModel:
    """A server on a free port; each request gets the next reply.

    Attributes:
        replies: The replies that are left.
        requests: Bodies of the requests so far.
    """

    replies: list[Say | CallTool]
    requests: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    async def __aenter__(self) -> Self:
        app = Starlette(
            routes=[
                Route("/v1/responses", self._responses, methods=["POST"]),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
                Route("/v1beta/models/{call:path}", self._gemini, methods=["POST"]),
            ]
        )
        config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off")
        self._server = uvicorn.Server(config)
        # Signals belong to pytest.
        self._server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        self._serving = asyncio.create_task(self._server.serve())
        while not self._server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        await self._serving

    async def _responses(self, request: Request) -> Response:
        return await self._reply(request, _responses_events)

    async def _chat(self, request: Request) -> Response:
        return await self._reply(request, _chat_events, last="data: [DONE]\n\n")

    async def _gemini(self, request: Request) -> Response:
        return await self._reply(request, _gemini_events)

    async def _reply(
        self, request: Request, events: Callable[[Say | CallTool], Events], last: str = ""
    ) -> Response:
        self.requests.append(await request.json())
        if not self.replies:
            return JSONResponse({"error": {"message": "the test has no reply left"}}, 400)
        reply = self.replies.pop(0)

        async def body() -> AsyncIterator[str]:
            deltas = 0
            for event in events(reply):
                is_delta = event.pop("delta?", False)
                if is_delta and isinstance(reply, Say):
                    if reply.fail_after == deltas:
                        raise ConnectionResetError("the test wants it")
                    if reply.wait is not None:
                        await reply.wait(deltas)
                    deltas += 1
                name = f"event: {event['type']}\n" if "type" in event else ""
                yield f"{name}data: {json.dumps(event)}\n\n"
            yield last

        return StreamingResponse(body(), media_type="text/event-stream")


def _responses_events(reply: Say | CallTool) -> Events:
    item: dict[str, Any]
    if isinstance(reply, Say):
        part = {"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []}
        item = {"id": "item_1", "type": "message", "role": "assistant", "content": [part]}
    else:
        item = {
            "id": "item_1",
            "type": "function_call",
            "call_id": "call_1",
            "name": reply.name,
            "arguments": "{}",
        }
    item["status"] = "completed"
    empty: dict[str, Any] = {"content": []} if "content" in item else {"arguments": ""}
    begun = {**empty, "status": "in_progress"}
    response = {
        "id": "response_1",
        "object": "response",
        "created_at": 0,
        "model": "fake",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "status": "in_progress",
    }
    usage = {
        "input_tokens": 1,
        "output_tokens": 1,
        "total_tokens": 2,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    place = {"item_id": "item_1", "output_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, **begun}},
    ]
    if isinstance(reply, Say):
        events += [
            {
                "type": "response.output_text.delta",
                "delta": delta,
                "logprobs": [],
                **place,
                "content_index": 0,
                "delta?": True,
            }
            for delta in reply.deltas
        ]
    else:
        events.append({"type": "response.function_call_arguments.delta", "delta": "{}", **place})
    done = {**response, "status": "completed", "output": [item], "usage": usage}
    events += [
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": done},
    ]
    for number, event in enumerate(events):
        yield {**event, "sequence_number": number}


def _chat_events(reply: Say | CallTool) -> Events:
    chunk = {"id": "chat_1", "object": "chat.completion.chunk", "created": 0, "model": "fake"}

    def choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield choice({"role": "assistant", "content": ""})
    if isinstance(reply, Say):
        for delta in reply.deltas:
            yield {**choice({"content": delta}), "delta?": True}
        yield choice({}, "stop")
    else:
        function = {"name": reply.name, "arguments": "{}"}
        call = {"index": 0, "id": "call_1", "type": "function", "function": function}
        yield choice({"tool_calls": [call]})
        yield choice({}, "tool_calls")


def _gemini_events(reply: Say | CallTool) -> Events:
    assert isinstance(reply, Say)
    last = len(reply.deltas) - 1
    for number, delta in enumerate(reply.deltas):
        candidate = {"content": {"role": "model", "parts": [{"text": delta}]}, "index": 0}
        if number == last:
            candidate["finishReason"] = "STOP"
        yield {"candidates": [candidate], "modelVersion": "fake", "delta?": True}
