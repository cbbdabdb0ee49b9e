"""The configuration of every process of a run: addresses, settings and directories."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from streamq import (
    BackendUnavailableError,
    ConfigurationError,
    Settings,
    StorageFullError,
    load_settings,
    open_queue,
)
from streamq.driver import ChunkQueue

TASK_QUEUE = "chaos"
_RETRY_PAUSE_SECONDS = 0.1

_SETTINGS = {
    # Smaller than the data that large streams have in flight, so that writers wait.
    "STREAMQ_BUFFER_BYTES": "400000",
}


@dataclass(frozen=True, slots=True)
class Setup:
    """Addresses and directories of a run.

    Attributes:
        directory: Directory of ledgers, reader logs and process logs.
        temporal_address: Address of the Temporal server.
        worker_temporal_addresses: Address through which each worker reaches it.
        worker_settings: Variables with which workers reach the backend.
        reader_settings: Variables with which readers and the gateway reach it.
        credentials_file: File with the password of the backend's user, if there is one.
        gateway_port: Port that the gateway listens on.
        http_port: Port that clients of the gateway connect to.
    """

    directory: Path
    temporal_address: str
    worker_temporal_addresses: Mapping[str, str]
    worker_settings: Mapping[str, str]
    reader_settings: Mapping[str, str]
    credentials_file: Path | None
    gateway_port: int
    http_port: int

    @property
    def streams_path(self) -> Path:
        """Ledger of the streams, in the order of their start."""
        return self.directory / "streams.jsonl"

    @property
    def attempts_directory(self) -> Path:
        """Directory of the attempts' ledgers."""
        return self.directory / "attempts"

    def reader_path(self, reader: str) -> Path:
        """Log of a reader."""
        return self.directory / f"reader-{reader}.jsonl"

    def log_path(self, name: str) -> Path:
        """Log of a process."""
        return self.directory / f"{name}.log"


def configure(variables: Mapping[str, str]) -> Settings:
    """Configure streamq in this process, regardless of the environment of the run."""
    for name in [name for name in os.environ if name.startswith("STREAMQ_")]:
        del os.environ[name]
    os.environ.update(_SETTINGS)
    os.environ.update(variables)
    return load_settings()


async def open_patiently(settings: Settings, credentials_file: Path | None) -> ChunkQueue:
    """Open the queue as soon as the backend is available, and the password's file is there.

    Every other error is one that a program would report, and ends the process.
    """

    def is_there() -> bool:
        return credentials_file is None or credentials_file.exists()

    while True:
        was_there = is_there()
        try:
            return await open_queue(settings)
        except (BackendUnavailableError, StorageFullError):
            pass
        except ConfigurationError:
            if was_there and is_there():
                raise
        await asyncio.sleep(_RETRY_PAUSE_SECONDS)
