"""Runs an emulator of S3, SNS and SQS; its objects survive its death, its notifications do not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from streamq.devserver import free_port
from streamq_aws.embedded import REGION, Ministack

from ._backend import Backend
from ._processes import ServerVictim
from ._schedule import SERVER, Fault, FaultKind, Source

NOTIFICATIONS = "notifications"
"""Messages that wake waiting readers."""

_NAME = "streamq"
_AGAIN_SECONDS = 0.05


class S3Account(Backend):
    """A bucket and a topic."""

    name = "s3sns"
    # A segment is an object: a request for each flush, of which this emulator answers few.
    streams_per_second = 0.7
    sources = (
        Source(5, FaultKind.KILL, (SERVER,), 0.05, 1.0),
        Source(3, FaultKind.PAUSE, (SERVER,), 0.2, 3.0),
        Source(6, FaultKind.LOSE, (NOTIFICATIONS,), 0.5, 4.0),
    )

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._server = Ministack(port=free_port(), data_dir=directory / "s3")
        self._topic = ""
        self.victims = {SERVER: EmulatorVictim(SERVER, self._server, self._create_topic)}

    @property
    def port(self) -> int:  # type: ignore[override]
        """Port of the emulator."""
        return self._server.port

    def settings(self, address: str) -> dict[str, str]:
        """Return the variables with which a process reaches it at a link's address."""
        return {
            **self._server.environment,
            "STREAMQ_S3SNS_ENDPOINT_URL": f"http://{address}",
            "STREAMQ_S3SNS_REGION": REGION,
            "STREAMQ_S3SNS_BUCKET": _NAME,
            "STREAMQ_S3SNS_TOPIC_ARN": self._topic,
            # Short, so that half-open connections are detected many times within a run.
            "STREAMQ_S3SNS_CONNECT_TIMEOUT_SECONDS": "2",
            "STREAMQ_S3SNS_OPERATION_TIMEOUT_SECONDS": "3",
        }

    async def start(self) -> None:
        """Start it, with a bucket and a topic."""
        await asyncio.to_thread(self._start)

    def stop(self) -> None:
        """Stop it."""
        self._server.stop()

    async def carry_out(self, fault: Fault) -> bool:
        """Lose notifications for some seconds; return whether there was a queue of a reader."""
        return await asyncio.to_thread(self._lose, fault.seconds)

    def _start(self) -> None:
        self.victims[SERVER].start()
        with self._server.client("s3") as s3:
            s3.create_bucket(Bucket=_NAME)
            # The emulator forgets an empty bucket when it is killed.
            s3.put_object(Bucket=_NAME, Key="keeps-the-bucket", Body=b"")

    def _create_topic(self) -> None:
        with self._server.client("sns", REGION) as sns:
            self._topic = str(sns.create_topic(Name=_NAME)["TopicArn"])

    def _lose(self, seconds: float) -> bool:
        until, had_effect = time.monotonic() + seconds, False
        with self._server.client("sqs", REGION) as sqs:
            while time.monotonic() < until:
                # It may be killed or paused meanwhile, and a reader may remove its queue.
                with contextlib.suppress(BotoCoreError, ClientError):
                    for url in sqs.list_queues().get("QueueUrls", ()):
                        sqs.purge_queue(QueueUrl=url)
                        had_effect = True
                time.sleep(_AGAIN_SECONDS)
        return had_effect


class EmulatorVictim(ServerVictim):
    """An emulator that forgets its topic when it is killed, as the service does not."""

    def __init__(self, name: str, server: Ministack, create_topic: Callable[[], None]) -> None:
        super().__init__(name, server)
        self._create_topic = create_topic

    def start(self) -> None:
        """Start it on its objects, with a topic of the same name."""
        super().start()
        self._create_topic()
