"""The example clients of the documents: they tell the end of a response from that of a stream."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.programs import program

from streamq import Settings, open_writer
from streamq.access import mint_token, new_secret

from .served import Serve, WatchedQueue

EXAMPLES = Path(__file__).parents[2] / "docs/examples"


REFUSALS = [
    "429 Too Many Requests\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT",
    "503 Service Unavailable\r\nRetry-After: 1",
    "502 Bad Gateway",
]
STREAM = """id: 1@1
event: chunk
data: {"event":"chunk","value":"first"}

id: 2@1
event: end
data: {"event":"end","state":"END"}

"""


@pytest.mark.parametrize("example", ["read_over_http.py", "read_over_http.mjs"])
async def test_the_example_waits_for_what_passes_by_itself(example: str) -> None:
    """A bound of the gateway, or a proxy whose gateway restarts, does not end a stream."""
    answers = [f"{status}\r\nContent-Length: 0" for status in REFUSALS]
    answers.append(f"200 OK\r\nContent-Length: {len(STREAM)}\r\nContent-Type: text/event-stream")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = answers.pop(0)
        body = "" if answers else STREAM
        writer.write(f"HTTP/1.1 {head}\r\nConnection: close\r\n\r\n{body}".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, asyncio.timeout(60):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/streams/s/events"
        process = await asyncio.create_subprocess_exec(
            interpreter(example), str(EXAMPLES / example), url, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    assert (process.returncode, output.decode().splitlines()) == (0, ["first", "-- END"])


def interpreter(example: str) -> str:
    return sys.executable if example.endswith(".py") else program("node", package="nodejs")


@pytest.mark.parametrize("example", ["read_over_http.py", "read_over_http.mjs"])
async def test_the_example_reads_to_the_end_of_the_stream(
    start: Serve, queue: WatchedQueue, example: str
) -> None:
    """Connections end by age, and by a gateway that stops; nothing is lost or printed twice."""
    served = await start(max_age_seconds=0.2)
    url = f"{served.server.url}/streams/s/events"
    writer = await open_writer("s", queue=queue)
    await writer.send_chunk("first")
    await writer.flush()
    process = await asyncio.create_subprocess_exec(
        interpreter(example), str(EXAMPLES / example), url, stdout=asyncio.subprocess.PIPE
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


@pytest.mark.parametrize("example", ["read_over_http.py", "read_over_http.mjs"])
async def test_the_example_goes_on_with_a_new_token(
    queue: WatchedQueue, settings: Settings, tmp_path: Path, example: str
) -> None:
    """A connection ends with its token, and the next one begins at the place."""
    guarded = settings.model_copy(update={"token_key": SecretStr(new_secret())})
    file = tmp_path / "token.txt"
    file.write_text(mint_token(stream="s", lifetime=timedelta(seconds=10), settings=guarded) + "\n")
    async with AsyncExitStack() as stack:
        served = await Serve(stack, queue, guarded)()
        async with asyncio.timeout(60), open_writer("s", queue=queue) as writer:
            await writer.send_chunk("first")
            await writer.flush()
            process = await asyncio.create_subprocess_exec(
                *(interpreter(example), str(EXAMPLES / example)),
                *(f"{served.server.url}/events/s", str(file)),
                stdout=asyncio.subprocess.PIPE,
            )
            stack.push_async_callback(ended, process)
            assert process.stdout is not None
            assert await process.stdout.readline() == b"first\n"
            file.write_text(mint_token(stream="s", settings=guarded))
            while served.gateway.statistics().connections:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            await writer.send_chunk("second")
            assert await process.stdout.readline() == b"second\n"
        async with asyncio.timeout(60):
            assert (await process.stdout.read()).decode().splitlines() == ["-- END"]
            assert await process.wait() == 0


async def ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
