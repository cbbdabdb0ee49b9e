"""The command line on SQS: listing streams, and refusing a second reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from streamq.driver import Entry, QueueOptions, StreamId
from streamq.testing import OpenQueue
from streamq_sqs import SqsDriver, SqsSettings

SECONDS = 60


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in the environment of the test."""
    return subprocess.run(
        [sys.executable, "-m", "streamq.cli", *arguments],
        check=False,
        env=os.environ | {"STREAMQ_BACKEND": "sqs"} | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def listed(stream: StreamId) -> dict[str, Any]:
    """Return the facts that ``streamq ls`` prints about a stream."""
    done = command("ls", stream.name, "--tenant", stream.tenant, "--json")
    assert done.returncode == 0, done.stderr
    (facts,) = json.loads(done.stdout)["streams"]
    return dict(facts)


async def test_list_shows_attempts_and_time_until_a_sweep(
    open_queue: OpenQueue, stream: StreamId
) -> None:
    """Without an expiry time, operators would take the queues for a leak."""
    queue = await open_queue()
    for epoch in (1, 2):
        await queue.append(stream, [Entry(epoch, 0, b"a")])
    facts = listed(stream)
    assert facts["attempt"] == 2
    left = (await queue.describe(stream)).expires_in
    assert left is not None
    assert 0 < left.total_seconds() <= facts["expires_in_seconds"] <= 300


async def test_list_shows_that_a_stream_has_expired(
    settings: SqsSettings, stream: StreamId
) -> None:
    """The time to live has passed, and no sweep has run."""
    async with await SqsDriver.open(QueueOptions(ttl=timedelta(0)), settings) as queue:
        await queue.append(stream, [Entry(1, 0, b"a")])
        assert listed(stream)["expires_in_seconds"] == 0
        done = command("ls", stream.name, "--tenant", stream.tenant)
        assert done.stdout.split()[-2:] == ["0", "s"]


@pytest.mark.parametrize("arguments", [["serve", "--port", "0"], ["tail", "any"]])
def test_command_that_would_be_a_second_reader_is_refused(arguments: list[str]) -> None:
    """A second reader of a queue would get chunks that the first one never sees."""
    done = command(*arguments)
    assert done.returncode == 2
    assert "does not offer replay" in done.stderr
    assert done.stdout == ""
