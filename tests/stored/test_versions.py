"""Tests that processes of an earlier streamq and of this one work on the same streams.

The earlier one is taken from the history of the repository and runs in this environment.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse

from streamq import load_settings, open_queue
from streamq.driver import ChunkQueue
from streamq.gateway import create_app, serve

from .earlier import LIVE
from .servers import SERVERS, Postgres, Server
from .stories import read_all, settings, write_all

pytestmark = pytest.mark.full  # starts every server several times

ROOT = Path(__file__).parents[2]
EARLIER = "9c9dd70"
"""The commit before backends learned that their servers move."""

_KNOWN = [kind for kind in SERVERS if kind is not Postgres]  # the earlier one has no driver for it
KINDS = pytest.mark.parametrize("kind", _KNOWN, ids=lambda kind: kind.backend)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the earlier streamq."""
    git = shutil.which("git")
    command = [str(git), "-C", str(ROOT), "archive", EARLIER, "src", "plugins"]
    archive = subprocess.run(command, capture_output=True, check=False) if git else None
    if archive is None or archive.returncode:
        pytest.skip(f"commit {EARLIER} is not in the history that is here")
    directory = tmp_path_factory.mktemp("earlier")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(directory, filter="data")
    return directory


def sources(earlier: Path) -> list[Path]:
    """Return the directories to import from, before those of this streamq."""
    return [earlier / "src", *sorted(earlier.glob("plugins/*/src")), ROOT]


async def run(earlier: Path, task: str, backend: str) -> Any:
    """Run a task with the earlier streamq; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources(earlier)))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.stored.earlier", task, backend),
        env=environment,
        stdout=subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(out)


@asynccontextmanager
async def running(
    kind: type[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ChunkQueue]:
    async with kind(tmp_path).running() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        async with open_queue(settings(kind.backend)) as queue:
            yield queue


@KINDS
async def test_earlier_streamq_reads_what_this_one_stores(
    kind: type[Server], earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may be upgraded before its readers."""
    async with running(kind, tmp_path, monkeypatch) as queue:
        await write_all(queue)
        found = await run(earlier, "read", kind.backend)
        if queue.capabilities.replay:
            expected = json.loads(json.dumps(await read_all(queue)))
            assert [each["events"] for each in found] == [
                [
                    {name: event[name] for name in old}
                    for event, old in zip(each["events"], theirs["events"], strict=True)
                ]
                for each, theirs in zip(expected, found, strict=True)
            ]
            assert [each["cursors"] for each in found] == [each["cursors"] for each in expected]
        assert sum(len(each["events"]) for each in found) > 350


@KINDS
async def test_worker_of_the_earlier_streamq_beside_a_gateway_of_this_one(
    kind: type[Server], earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway may be upgraded before the workers."""
    async with running(kind, tmp_path, monkeypatch) as queue:
        if not queue.capabilities.replay:
            pytest.skip(f"{kind.backend} has no replay: there is no gateway over it")
        chosen = load_settings(backend=kind.backend, tenant="stored")
        async with (
            serve(create_app(queue, chosen)) as server,
            httpx.AsyncClient(base_url=server.url, timeout=60) as client,
        ):
            writing = asyncio.create_task(run(earlier, "slowly", kind.backend))
            path = "/streams/live/events?wait=60"
            async with aconnect_sse(client, "GET", path) as source:
                events = [json.loads(event.data) async for event in source.aiter_sse()]
        assert str(earlier) in await writing
        assert [each.get("value") for each in events] == [*LIVE, None]
        assert [each["offset"] for each in events] == [*range(1, len(LIVE) + 2)]
