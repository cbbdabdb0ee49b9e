"""The example clients of the documents: they tell the end of a response from that of a stream."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from tests.programs import program

from streamq import open_writer

from .served import Serve, WatchedQueue

EXAMPLES = Path(__file__).parents[2] / "docs/examples"


@pytest.mark.parametrize("example", ["read_over_http.py", "read_over_http.mjs"])
async def test_the_example_reads_to_the_end_of_the_stream(
    start: Serve, queue: WatchedQueue, example: str
) -> None:
    """Connections end by age, and by a gateway that stops; nothing is lost or printed twice."""
    is_python = example.endswith(".py")
    interpreter = sys.executable if is_python else program("node", package="nodejs")
    served = await start(max_age_seconds=0.2)
    url = f"{served.server.url}/streams/s/events"
    writer = await open_writer("s", queue=queue)
    await writer.send_chunk("first")
    await writer.flush()
    process = await asyncio.create_subprocess_exec(
        interpreter, str(EXAMPLES / example), url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"first\n"
            for word in ("second", "third"):
                # The age of 0.2 s ends it; there is no event for that.
                while served.gateway.statistics().connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
                await writer.send_chunk(word)
                await writer.flush()
                assert await process.stdout.readline() == f"{word}\n".encode()
            await writer.aclose()
            async with open_writer("s", queue=queue) as retry:
                await retry.send_chunk({"n": 1})
            rest = (await process.stdout.read()).decode().splitlines()
            assert rest[0] == "-- another attempt starts over"
            assert rest[1].replace("'", "").replace(" ", "") == "{n:1}"
            assert rest[2:] == ["-- END"]
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
