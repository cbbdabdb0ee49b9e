"""A film beside the stream: the activity uploads it, and a permitted reader gets a URL of S3."""

import asyncio
import hashlib
import hmac
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

from temporalio import workflow
from temporalio.worker import Worker

from streamq import Chunk, StreamNotFoundError, StreamWriter, open_queue
from streamq.temporal import StreamqPlugin, connect, streaming_activity, subscribe

with workflow.unsafe.imports_passed_through():  # the workflow uses nothing of these
    import httpx
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, RedirectResponse
    from starlette.routing import Mount, Route
    from starlette.types import ASGIApp, Receive, Scope, Send

    from streamq.gateway import create_app, serve
    from streamq_s3sns import HandOver, ObjectNotFoundError, ObjectReference, open_hand_over

TOKEN = "that-of-the-reader"  # yours comes from where your readers log in


async def frames(title: str) -> AsyncIterator[bytes]:
    """Stand for a renderer that makes a film piece by piece."""
    for number in range(500):
        yield f"{title} {number:4} ".encode() * 3_000


class Studio:
    """Has activities that share one connection."""

    def __init__(self, hand_over: HandOver) -> None:
        self._hand_over = hand_over

    @streaming_activity
    async def render(self, title: str, stream: StreamWriter) -> str:
        """Send progress, and the film as a reference: it is uploaded in parts."""
        await stream.send_chunk("rendering")
        film = await self._hand_over.upload(
            stream, frames(title), media_type="video/mp4", name=f"{title}.mp4"
        )
        await stream.send_chunk(film)
        return f"{title} is ready"


@workflow.defn
class Film:
    """Knows nothing of S3."""

    @workflow.run
    async def run(self, title: str) -> str:
        """Return the announcement of the film."""
        return await workflow.execute_activity_method(
            Studio.render,
            title,
            start_to_close_timeout=timedelta(minutes=5),
            heartbeat_timeout=timedelta(seconds=10),
        )


class Guard:
    """Guards the gateway's events and the objects alike: the same right opens both."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request with the token through; where rights differ, check the name, too."""
        if scope["type"] == "http":
            said = Request(scope).headers.get("authorization", "")
            if not hmac.compare_digest(said.encode(), f"Bearer {TOKEN}".encode()):
                return await JSONResponse({"error": "unauthorized"}, 401)(scope, receive, send)
        return await self._app(scope, receive, send)


async def redirect(request: Request) -> RedirectResponse | JSONResponse:
    """Redirect a reader with a valid token to the object, for a minute."""
    hand_over: HandOver = request.app.state.hand_over
    name, identity = request.path_params["name"], request.path_params["id"]
    try:
        url = await hand_over.url(name, identity, lifetime=timedelta(minutes=1))
    except (StreamNotFoundError, ObjectNotFoundError) as exc:
        return JSONResponse({"error": exc.code, "message": exc.message}, 404)
    # The URL opens the object by itself: no cache may keep it, and no other page may learn it.
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(url, 307, headers)


async def fetch(url: str, film: ObjectReference) -> None:
    """Do with a received reference what a browser does."""
    async with httpx.AsyncClient(follow_redirects=True) as browser:
        print("without the token:", (await browser.get(url)).status_code)
        answer = await browser.get(url, headers={"Authorization": f"Bearer {TOKEN}"})
        print("with it:", answer.status_code, answer.headers["Content-Disposition"])
        is_whole = hashlib.sha256(answer.content).hexdigest() == film.sha256
        print(f"{len(answer.content)} bytes,", "as uploaded" if is_whole else "damaged")
        other = await browser.get(url[:-1], headers={"Authorization": f"Bearer {TOKEN}"})
        print("another id:", other.status_code)


async def main() -> None:
    """Run worker, workflow and gateway, and fetch the film."""
    client = await connect(plugins=[StreamqPlugin()])
    async with open_queue() as queue, open_hand_over(queue=queue) as hand_over:
        app = Starlette(
            routes=[Route("/objects/{name:path}/{id}", redirect), Mount("/", create_app(queue))],
            middleware=[Middleware(Guard)],
        )
        app.state.hand_over = hand_over
        activities = [Studio(hand_over).render]
        worker = Worker(client, task_queue="films", workflows=[Film], activities=activities)
        async with worker, serve(app) as server:
            handle = await client.start_workflow(
                Film.run, "Argo", id=f"film-{uuid.uuid4()}", task_queue="films"
            )
            async with subscribe(handle) as events:
                async for event in events:
                    if isinstance(event, Chunk) and isinstance(event.value, str):
                        print(event.value)
                    elif isinstance(event, Chunk):
                        film = ObjectReference.of(event.value)
                        print(f"{film.name}, {film.bytes} bytes")
                        await fetch(f"{server.url}/objects/{events.stream.name}/{film.id}", film)
            print(await handle.result())


if __name__ == "__main__":
    asyncio.run(main())
