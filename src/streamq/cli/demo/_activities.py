"""The activities of ``streamq demo``: ordinary ones, to be copied.

The first parameter of each is the stream to write; Temporal passes the others.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import functools
import json
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
from temporalio.exceptions import ApplicationError

from streamq import StreamWriter
from streamq.devserver import Guardian
from streamq.driver import close_all
from streamq.temporal import streaming_activity

_BLOCK = 16_384
_STOP_SECONDS = 1.0
_SILENCE_SECONDS = 0.3


@streaming_activity
async def stream_text(stream: StreamWriter, text: str, words_per_second: float) -> None:
    """Send a text word by word."""
    for word in split_words(text):
        await stream.send_chunk(word)
        await asyncio.sleep(1 / words_per_second if words_per_second else 0)


@streaming_activity
async def stream_file(stream: StreamWriter, path: str, words_per_second: float) -> None:
    """Send a text file: word by word, or in blocks as fast as possible with a pace of 0."""
    opened = functools.partial(open, path, encoding="utf-8", errors="replace", newline="")
    with await asyncio.to_thread(opened) as file:
        while block := await asyncio.to_thread(file.read, _BLOCK):
            if not words_per_second:
                await stream.send_chunk(block)
                continue
            block += await asyncio.to_thread(file.readline, _BLOCK)  # to the end of a word
            for word in split_words(block):
                await stream.send_chunk(word)
                await asyncio.sleep(1 / words_per_second)


@streaming_activity
async def stream_command(stream: StreamWriter, command: str) -> None:
    """Run a shell command and send its output as it is printed."""
    async with running(command) as (process, output):
        async for text in decoded(functools.partial(read_output, process, output)):
            await stream.send_chunk(text)
        status = await process.wait()
    if status:
        how = f"exit status {status}" if status > 0 else f"signal {-status}"
        # Not retryable: only a person can decide to run a command again.
        raise ApplicationError(
            f"the command ended with {how}", type="CommandFailed", non_retryable=True
        )


@streaming_activity
async def stream_stdin(stream: StreamWriter) -> None:
    """Send the standard input of this process as it arrives."""
    async for text in decoded(read_stdin):
        await stream.send_chunk(text)


@streaming_activity
async def stream_completion(stream: StreamWriter, prompt: str, model: str) -> None:
    """Send the answer of a language model, token by token, from an OpenAI-compatible server."""
    # The key is read here, so that it does not get into the workflow history.
    key = os.environ.get("OPENAI_API_KEY", "")
    base = os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    question = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True}
    try:
        async with (
            httpx.AsyncClient(timeout=60) as client,
            client.stream(
                "POST",
                f"{base.rstrip('/')}/chat/completions",
                json=question,
                headers={"Authorization": f"Bearer {key}"} if key else {},
            ) as response,
        ):
            if response.is_error:
                raise refused(response.status_code, await response.aread())
            async for token in tokens(response):
                await stream.send_chunk(token)
    except httpx.HTTPError as exc:
        raise ApplicationError(
            f"the model's server fails: {type(exc).__name__}: {exc}", type="ModelUnavailable"
        ) from None


def split_words(text: str) -> Iterator[str]:
    """Yield the words with the white space that follows them; joined they give the text."""
    for found in re.finditer(r"\S+\s*|\s+", text):
        yield found.group()


async def decoded(read: Callable[[int], Any]) -> AsyncIterator[str]:
    """Yield text as its bytes arrive, in whole characters."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while data := await read(_BLOCK):
        if text := decoder.decode(data):
            yield text
    if text := decoder.decode(b"", final=True):
        yield text


@contextlib.asynccontextmanager
async def running(command: str) -> AsyncIterator[tuple[Process, int]]:
    """Run a shell command in a process group; yield the process and the descriptor of its output.

    All processes of the group are ended afterwards, even if this process is killed.
    """
    # Not a pipe of asyncio, which waits for its end while any process still holds the other end.
    output, theirs = os.pipe()
    try:
        os.set_blocking(output, False)
        try:
            process = await asyncio.create_subprocess_shell(
                command, stdin=DEVNULL, stdout=theirs, stderr=STDOUT, start_new_session=True
            )
        finally:
            os.close(theirs)
        with contextlib.ExitStack() as guarded:
            try:
                guarded.enter_context(Guardian(process.pid))
                yield process, output
            finally:
                await close_all(functools.partial(stop_group, process))
    finally:
        os.close(output)


async def read_output(process: Process, output: int, size: int) -> bytes:
    """Wait for output; return ``b""`` at its end, or if the command has ended and is silent.

    Background processes of the command may keep the pipe open for ever.
    """
    has_fallen_silent = False
    while True:
        has_ended = process.returncode is not None
        with contextlib.suppress(BlockingIOError):
            return os.read(output, size)
        if has_fallen_silent:
            return b""
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                await readable(output)
        except TimeoutError:
            has_fallen_silent = has_ended


async def stop_group(process: Process) -> None:
    """End a process that leads its own group, and all processes of the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def read_stdin(size: int) -> bytes:
    """Wait for standard input."""
    fd = sys.stdin.fileno()
    await readable(fd)
    return os.read(fd, size)


async def readable(fd: int) -> None:
    """Wait for data without a thread, which could not be cancelled; a file is always ready."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    with contextlib.suppress(PermissionError):  # epoll does not accept ordinary files
        loop.add_reader(fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(fd)


async def tokens(response: httpx.Response) -> AsyncIterator[str]:
    """Yield the pieces of a streamed chat completion.

    Raises:
        ApplicationError: The server reports an error, or the answer is incomplete.
    """
    async for line in response.aiter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
            problem = event.get("error")
            pieces = [choice.get("delta", {}).get("content") for choice in event.get("choices", ())]
        except (ValueError, AttributeError, TypeError):
            raise ApplicationError(
                f"the model's server does not send chat completions: {data[:200]!r}",
                type="ModelFailed",
                non_retryable=True,
            ) from None
        if problem:
            raise ApplicationError(f"the model's server reports: {problem}", type="ModelFailed")
        for piece in pieces:
            if piece:
                yield piece
    raise ApplicationError("the model's answer is incomplete", type="ModelUnavailable")


def refused(status: int, body: bytes) -> ApplicationError:
    """Return the failure for an HTTP status; it is retryable only for overload and timeouts."""
    text = body[:500].decode("utf-8", "replace")
    with contextlib.suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(body)["error"]["message"])
    key = os.environ.get("OPENAI_API_KEY")
    if key:
        text = text.replace(key, "**********")
    return ApplicationError(
        f"the model's server refuses with HTTP status {status}: {' '.join(text.split())}",
        type="ModelFailed",
        non_retryable=status not in (408, 409, 429) and status < 500,
    )
