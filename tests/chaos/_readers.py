"""Runs reader processes: each reads every stream, and resumes after its death from its log.

An event and the cursor after it are written by one system call, so that a reader that is killed
continues exactly after the last event that it has recorded.
"""

from __future__ import annotations

import abc
import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
from httpx_sse import EventSource
from temporalio.client import Client

from streamq import IdleTimeoutError, StreamqError, open_reader
from streamq.driver import StreamId
from streamq.temporal import subscribe

from ._gateway import OPTIONS
from ._ledger import Ledger, LedgerTail, read_ledger
from ._recorded import fields_of
from ._setup import Setup, configure, open_patiently
from ._workload import digest

_POLL_SECONDS = 0.1
_PAUSE_SECONDS = 0.1
_MAX_CONNECTIONS = 2_000


class _GivesUpError(Exception):
    """An error that will not pass by itself."""


class Reader(abc.ABC):
    """Reads every stream of a run to its end.

    Args:
        setup: Addresses and directories of the run.
        name: Name of the log.
    """

    def __init__(self, setup: Setup, name: str) -> None:
        self.setup = setup
        path = setup.reader_path(name)
        self._cursors: dict[str, str] = {}
        self._over: set[str] = set()
        self._log = Ledger(path)
        for line in read_ledger(path):
            self._cursors[line["s"]] = line.get("c", "")
            if line["k"] in ("end", "error"):
                self._over.add(line["s"])

    async def run(self) -> None:
        """Read until killed."""
        streams = LedgerTail(self.setup.streams_path)
        async with asyncio.TaskGroup() as tasks:
            while True:
                for line in streams.read():
                    if line["t"] == "stream" and line["s"] not in self._over:
                        tasks.create_task(self._follow(line))
                await asyncio.sleep(_POLL_SECONDS)

    async def _follow(self, stream: dict[str, Any]) -> None:
        name = stream["s"]
        while name not in self._over:
            try:
                async for fields, cursor in self.events(stream, self._cursors.get(name, "")):
                    self._log.write(s=name, c=cursor, **fields)
                    self._cursors[name] = cursor
                    if fields["k"] == "end":
                        self._over.add(name)
            except (_GivesUpError, StreamqError) as exc:
                if isinstance(exc, StreamqError) and is_passing(exc):
                    await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                self._log.write(s=name, k="error", text=f"{type(exc).__name__}: {exc}")
                self._over.add(name)

    @abc.abstractmethod
    def events(
        self, stream: dict[str, Any], cursor: str
    ) -> AsyncIterator[tuple[dict[str, Any], str]]:
        """Yield events as fields, each with the cursor after it, until something interrupts.

        Raises:
            StreamqError: Reading cannot continue; :func:`is_passing` decides whether to retry.
        """


def is_passing(error: StreamqError) -> bool:
    """Whether a reader tries again after this error, as a program would."""
    return error.retryable or isinstance(error, IdleTimeoutError)


class DirectReader(Reader):
    """Reads the backend with a cursor."""

    async def run(self) -> None:
        """Read until killed."""
        self._settings = configure(self.setup.reader_settings)
        self._queue = await open_patiently(self._settings, self.setup.credentials_file)
        await super().run()

    async def events(
        self, stream: dict[str, Any], cursor: str
    ) -> AsyncIterator[tuple[dict[str, Any], str]]:
        """Yield the events of ``open_reader``."""
        tenant, _, name = stream["s"].partition("/")
        async with open_reader(
            StreamId(tenant, name),
            from_=cursor or "beginning",
            queue=self._queue,
            settings=self._settings,
        ) as reader:
            async for event in reader:
                yield fields_of(event), reader.cursor


class SubscribedReader(Reader):
    """Reads the backend with a cursor, and follows the workflow."""

    async def run(self) -> None:
        """Read until killed."""
        self._settings = configure(self.setup.reader_settings)
        self._queue = await open_patiently(self._settings, self.setup.credentials_file)
        self._client = await Client.connect(self.setup.temporal_address)
        await super().run()

    async def events(
        self, stream: dict[str, Any], cursor: str
    ) -> AsyncIterator[tuple[dict[str, Any], str]]:
        """Yield the events of ``subscribe``."""
        handle = self._client.get_workflow_handle(
            stream["plan"]["name"], first_execution_run_id=stream["run"]
        )
        async with subscribe(
            handle, from_=cursor or "beginning", queue=self._queue, settings=self._settings
        ) as events:
            async for event in events:
                yield fields_of(event), events.cursor


class SseReader(Reader):
    """Reads the gateway; the cursor is the last event's id."""

    async def run(self) -> None:
        """Read until killed."""
        limits = httpx.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=0)
        # The gateway sends a heartbeat every second; a longer silence means a dead connection.
        timeout = httpx.Timeout(3.0, read=3.0 * OPTIONS.heartbeat_seconds)
        async with httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False) as client:
            self._client = client
            await super().run()

    async def events(
        self, stream: dict[str, Any], cursor: str
    ) -> AsyncIterator[tuple[dict[str, Any], str]]:
        """Yield the events of one connection to the gateway."""
        name = stream["s"].partition("/")[2]
        url = f"http://127.0.0.1:{self.setup.http_port}/streams/{quote(name, safe='/')}/events"
        headers = {"Last-Event-ID": cursor} if cursor else {}
        try:
            async with self._client.stream(
                "GET", url, headers=headers, params={"wait": "300"}
            ) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    _check_status(response)
                    await asyncio.sleep(float(response.headers.get("Retry-After", _PAUSE_SECONDS)))
                    return
                async for sent in EventSource(response).aiter_sse():
                    data = json.loads(sent.data)
                    if sent.event == "error":
                        self._check_error(data, cursor)
                        return
                    if sent.event == "reconnect":
                        return
                    cursor = sent.id
                    yield _fields_of_sse(data), cursor
        except httpx.TransportError:
            await asyncio.sleep(_PAUSE_SECONDS)

    @staticmethod
    def _check_error(data: dict[str, Any], cursor: str) -> None:
        is_early = data["error"] == "stream_not_found" and not cursor
        if not (data["retryable"] or is_early):
            raise _GivesUpError(f"the gateway reports {data}")


def _check_status(response: httpx.Response) -> None:
    if response.status_code not in (429, 502, 503, 504):
        raise _GivesUpError(f"the gateway answers {response.status_code}: {response.text}")


def _fields_of_sse(data: dict[str, Any]) -> dict[str, Any]:
    fields = {"k": data["event"], "o": data["offset"], "a": data["attempt"]}
    if data["event"] == "chunk":
        value = base64.b64decode(data["base64"]) if "base64" in data else data["value"]
        return fields | {"n": data["seq"], "d": digest(value)}
    if data["event"] == "end":
        return fields | {"state": data["state"], "text": data.get("message", "")}
    return fields


_KINDS: dict[str, type[Reader]] = {
    "direct": DirectReader,
    "late": DirectReader,
    "subscribe": SubscribedReader,
    "sse": SseReader,
}


async def run_reader(setup: Setup, name: str) -> None:
    """Read until killed; the first part of the name selects the kind of reader."""
    kind = name.partition("-")[0]
    await _KINDS[kind](setup, name).run()
