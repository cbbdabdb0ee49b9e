"""The policy in the README is the least that works: what is called, and no more."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from streamq import open_reader, open_writer
from streamq.driver import StreamId
from streamq.testing import OpenQueue
from streamq_sqs import _requests

README = Path(__file__).parents[1] / "README.md"
WRITERS = {"CreateQueue", "TagQueue", "UntagQueue", "SendMessage", "DeleteQueue"}
READERS = {"ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility"}


def action(operation: str) -> str:
    """Return what a policy calls an operation of the client: batches have no name of their own."""
    return operation.removesuffix("_batch").title().replace("_", "")


def policy() -> set[str]:
    """Return the actions that the README lists."""
    (block,) = re.findall(r"```json\n(.*?)```", README.read_text(), re.DOTALL)
    listed: set[str] = set()
    for statement in json.loads(block)["Statement"]:
        actions = statement["Action"]
        listed.update([actions] if isinstance(actions, str) else actions)
    return {each.removeprefix("sqs:") for each in listed}


def test_policy_lists_what_is_called() -> None:
    """One action too few is an outage in somebody's account; one too many is not the least."""
    source = inspect.getsource(_requests)
    called = set(re.findall(r'_call\(\s*"(\w+)"', source)) | set(
        re.findall(r"self\._sqs\.(\w+)\(", source)
    )
    assert {action(each) for each in called} == policy()


async def test_writers_and_readers_need_only_their_own(
    open_queue: OpenQueue, stream: StreamId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README says what either can do without."""
    used: set[str] = set()
    call = _requests.SqsRequests._call

    async def note(service: _requests.SqsRequests, operation: str, **params: Any) -> Any:
        used.add(action(operation))
        return await call(service, operation, **params)

    monkeypatch.setattr(_requests.SqsRequests, "_call", note)
    async with open_writer(stream, queue=await open_queue()) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        await writer.send_chunk("b")
    assert used & {"SendMessage"}
    assert not used & READERS
    used.clear()
    async with open_reader(stream, queue=await open_queue()) as reader:
        assert await reader.collect() == ["a", "b"]
    assert used
    assert not used & WRITERS
