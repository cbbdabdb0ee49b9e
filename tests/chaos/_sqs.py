"""Runs an emulator of SQS, which has everything in memory: it is paused, not killed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from streamq.devserver import free_port
from streamq_aws.embedded import REGION, Ministack

from ._backend import Backend
from ._processes import ServerVictim
from ._schedule import SERVER, FaultKind, Source


class SqsAccount(Backend):
    """One queue for each stream, read by the workflow whose activity writes it."""

    name = "sqs"
    is_fenced = False
    # Writers count also the attempts that died before their first message.
    agrees_on_numbers = False
    has_fan_out = False
    policies = ("restart",)
    largest_chunk_bytes = 100_000
    streams_per_second = 0.7
    sources = (Source(5, FaultKind.PAUSE, (SERVER,), 0.2, 3.0),)

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._server = Ministack(port=free_port(), data_dir=directory / "aws")
        self.victims = {SERVER: ServerVictim(SERVER, self._server)}

    @property
    def port(self) -> int:  # type: ignore[override]
        """Port of the emulator."""
        return self._server.port

    def settings(self, address: str) -> dict[str, str]:
        """Return the variables with which a process reaches it at a link's address."""
        return {
            **self._server.environment,
            "STREAMQ_SQS_ENDPOINT_URL": f"http://{address}",
            "STREAMQ_SQS_REGION": REGION,
            "STREAMQ_SQS_MAX_MESSAGE_BYTES": "262144",  # this emulator's limit
            # Short, so that half-open connections and dead readers are detected within a run.
            "STREAMQ_SQS_CONNECT_TIMEOUT_SECONDS": "2",
            "STREAMQ_SQS_OPERATION_TIMEOUT_SECONDS": "3",
            "STREAMQ_SQS_VISIBILITY_SECONDS": "5",
        }

    async def start(self) -> None:
        """Start it; queues are made with the streams."""
        await asyncio.to_thread(self._server.start)

    def stop(self) -> None:
        """Stop it."""
        self._server.stop()
