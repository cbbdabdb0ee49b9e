"""Serves a workflow's stream by Starlette's own response, with few descriptors; run as a program.

It prints its port. ``GET /events`` streams the workflow named by the arguments, ``GET /held``
returns what the process holds.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import threading
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from temporalio.client import Client

from streamq import Chunk
from streamq.temporal import subscribe

DESCRIPTORS = 256


class PassesOn(BaseHTTPMiddleware):
    """Runs the response in a task group of its own, as many applications do."""

    async def dispatch(self, request: Request, call_next: object) -> Response:
        return await call_next(request)  # type: ignore[operator,no-any-return]


def make_app(client: Client, workflow_id: str, run_id: str) -> Starlette:
    handle = client.get_workflow_handle(workflow_id, run_id=run_id, first_execution_run_id=run_id)

    async def events(_: Request) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            async with subscribe(handle) as found:
                async for event in found:
                    if isinstance(event, Chunk):
                        yield f"data: {event.value}\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def held(_: Request) -> JSONResponse:
        names = [task.get_name() for task in asyncio.all_tasks()]
        threads = [each.name for each in threading.enumerate()]
        return JSONResponse(
            {
                "tasks": sum(name.startswith("streamq") for name in names),
                "threads": sum(name.startswith("streamq") for name in threads),
                "files": len(os.listdir("/proc/self/fd")),
            }
        )

    return Starlette(
        routes=[Route("/events", events), Route("/held", held)],
        middleware=[Middleware(PassesOn)] if "--middleware" in sys.argv else [],
    )


async def main(address: str, workflow_id: str, run_id: str) -> None:
    client = await Client.connect(address)
    config = uvicorn.Config(make_app(client, workflow_id, run_id), port=0, log_level="warning")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    sys.stdout.write(f"{server.servers[0].sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await serving


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    asyncio.run(main(*sys.argv[1:4]))
