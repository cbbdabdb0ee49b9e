"""Measures how soon revoking a token ends its connections on two gateways.

    python -m benchmarks.revocation                    # sqlite, redis and postgres
    python -m benchmarks.revocation --trials 200

Each gateway is a process of its own, ``streamq serve``. In each trial a client has a connection to
either with the same token. The time is measured from the call of ``revoke_token``, and of the
route ``POST /revocations`` in every second trial, until both connections have ended with the event
``revoked``. What is promised concerns the longest time of all trials. There is no bare contender.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
from httpx_sse import aconnect_sse

from benchmarks._stats import Row, percentile, show
from streamq import Settings, load_settings, open_queue, open_writer
from streamq.access import mint_token, new_secret, revoke_token
from streamq.driver import ChunkQueue
from streamq_postgres.embedded import EmbeddedPostgres
from streamq_redis.embedded import EmbeddedRedis

_PROMISED_MS = 2_000.0
_STARTING_SECONDS = 60.0
_TRIAL_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 0.3


@contextlib.asynccontextmanager
async def gateway() -> AsyncIterator[str]:
    """Run a gateway as a process and yield its address."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "streamq.cli", "serve", "--port", "0", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_STARTING_SECONDS):
            line = (await process.stdout.readline()).decode()
        if not line.startswith("http"):
            raise SystemExit(f"the gateway did not start: {line!r}")
        yield line.split()[0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def watch(client: httpx.AsyncClient, token: str, begun: asyncio.Event) -> float:
    """Read until the connection ends, and return when it did."""
    headers = {"Authorization": f"Bearer {token}"}
    name = ""
    async with aconnect_sse(client, "GET", "/streams/a/events", headers=headers) as source:
        async for event in source.aiter_sse():
            name = event.event
            if name == "chunk":
                begun.set()
    if name != "revoked":
        raise SystemExit(f"a connection ended with {name!r}")
    return time.perf_counter()


async def trial(
    clients: list[httpx.AsyncClient], queue: ChunkQueue, settings: Settings, *, by_http: bool
) -> float:
    """Return how many ms passed until both connections had ended."""
    token = mint_token(every=True, settings=settings)
    admin = mint_token(every=True, actions=["admin"], settings=settings)
    begun = [asyncio.Event() for _ in clients]
    watching = [
        asyncio.create_task(watch(client, token, event))
        for client, event in zip(clients, begun, strict=True)
    ]
    async with asyncio.timeout(_TRIAL_SECONDS):
        await asyncio.gather(*(event.wait() for event in begun))
        await asyncio.sleep(random.uniform(0.0, _LONGEST_PAUSE_SECONDS))
        started = time.perf_counter()
        if by_http:
            answer = await clients[0].post(
                "/revocations",
                json={"jti": _id(token)},
                headers={"Authorization": f"Bearer {admin}"},
            )
            answer.raise_for_status()
        else:
            await revoke_token(token, queue=queue, settings=settings)
        ended = await asyncio.gather(*watching)
    return (max(ended) - started) * 1_000


def _id(token: str) -> str:
    part = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["jti"])


async def run(backend: str, trials: int, key: str) -> Row:
    """Take the measurements of one backend."""
    settings = load_settings(backend=backend, token_key=key)
    os.environ["STREAMQ_BACKEND"] = backend
    os.environ["STREAMQ_TOKEN_KEY"] = key
    async with (
        open_queue(settings) as queue,
        open_writer("a", queue=queue, settings=settings) as writer,
        gateway() as one,
        gateway() as two,
        httpx.AsyncClient(base_url=one, timeout=_TRIAL_SECONDS) as first,
        httpx.AsyncClient(base_url=two, timeout=_TRIAL_SECONDS) as second,
    ):
        await writer.send_chunk("hello")
        await writer.flush()
        found = [
            await trial([first, second], queue, settings, by_http=bool(i % 2))
            for i in range(trials)
        ]
    longest = max(found)
    return Row(
        f"{backend}: revoked until both have ended, longest of {trials}, ms",
        None,
        longest,
        (min(found), percentile(found, 0.5)),
        f"< {_PROMISED_MS:,.0f} ms",
        longest < _PROMISED_MS,
    )


@contextlib.contextmanager
def server(backend: str) -> Iterator[None]:
    """Run what a backend needs, and set its variables."""
    match backend:
        case "redis":
            with EmbeddedRedis() as redis:
                os.environ["STREAMQ_REDIS_URL"] = redis.url
                yield
        case "postgres":
            with EmbeddedPostgres() as postgres:
                os.environ["STREAMQ_POSTGRES_URL"] = postgres.url
                yield
        case _:
            with tempfile.TemporaryDirectory() as folder:
                os.environ["STREAMQ_SQLITE_PATH"] = str(Path(folder) / "streams.db")
                yield


def main() -> int:
    """Run the benchmark; exit code 1 if the promise was not met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=50, help="trials on each backend")
    parser.add_argument("--backends", default="sqlite,redis,postgres", help="separated by commas")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    rows = []
    key = new_secret()
    for backend in args.backends.split(","):
        with server(backend):
            rows.append(asyncio.run(run(backend, args.trials, key)))
    title = (
        "Revoking a token that has a connection to each of two gateways; rounds are the shortest "
        "and the median trial"
    )
    return 0 if show(title, rows, as_json=args.json) else 1


if __name__ == "__main__":
    sys.exit(main())
