"""Tasks are listed as far as Temporal's visibility gives them."""

from __future__ import annotations

import asyncio
import base64

import pytest
from a2a.client.client import Client
from a2a.types.a2a_pb2 import ListTasksRequest, ListTasksResponse, TaskState
from a2a.utils.errors import InvalidParamsError
from tests.temporal.a2a.agents import Planner
from tests.temporal.a2a.replicas import TRANSPORTS, Stage, request, sent, streamed


async def _listed(client: Client, count: int, **fields: object) -> ListTasksResponse:
    """List until Temporal's visibility, which is a little late, shows so many tasks."""
    async with asyncio.timeout(20):
        while True:
            found = await client.list_tasks(ListTasksRequest(**fields))  # type: ignore[arg-type]
            if found.total_size >= count:
                return found
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_tasks_are_listed_page_by_page_and_filtered(stage: Stage, transport: str) -> None:
    """A client finds its tasks again, those of a conversation, and those in a state."""
    replica = await stage.replica()
    async with replica.starter(transport) as client:
        started = [
            await sent(client, request(text, context_id=context))
            for text, context in (("a", "one"), ("b", "one"), ("break", "two"))
        ]
        everything = await _listed(client, 3)
        assert {each.id for each in everything.tasks} == {each.id for each in started}
        assert not any(each.artifacts for each in everything.tasks)
        whole = await _listed(client, 2, context_id="one", include_artifacts=True)
        assert {each.context_id for each in whole.tasks} == {"one"}
        assert {each.artifacts[0].parts[0].text for each in whole.tasks} == {"a ", "b "}
        failed = await _listed(client, 1, status=TaskState.TASK_STATE_FAILED)
        assert [each.id for each in failed.tasks] == [started[2].id]
        short = await _listed(client, 3, history_length=0)
        assert not any(each.history for each in short.tasks)
        seen, token = [], ""
        for _ in range(3):
            page = await _listed(client, 3, page_size=1, page_token=token)
            seen += [each.id for each in page.tasks]
            token = page.next_page_token
        assert set(seen) == {each.id for each in started}
        with pytest.raises(InvalidParamsError):
            await client.list_tasks(ListTasksRequest(page_token="nonsense"))
        with pytest.raises(InvalidParamsError):
            await client.list_tasks(ListTasksRequest(page_size=1_000))


@pytest.mark.parametrize(
    "place",
    [
        '["", 0, 1e400]',
        '["", 1e400, 0]',
        '["", 0, 4294967296]',
        '["", -1, 0]',
        "[{}, 0, 0]",
        "[0]",
        "[" * 20_000,
    ],
)
async def test_a_page_token_of_ones_own_is_refused(stage: Stage, place: str) -> None:
    """Whatever a client makes up, it is its own mistake and no failure of the agent."""
    replica = await stage.replica()
    token = base64.urlsafe_b64encode(place.encode()).decode()
    async with replica.starter() as client:
        with pytest.raises(InvalidParamsError, match="page token"):
            await client.list_tasks(ListTasksRequest(page_token=token))


async def test_the_number_of_tasks_is_that_which_the_filters_want(stage: Stage) -> None:
    """A client that pages through a state learns from the first page how far it goes."""
    replica = await stage.replica()
    async with replica.starter() as client:
        for text in ("a", "b", "break", "c"):
            last = await sent(client, request(text))
        await _listed(client, 4)
        completed = TaskState.TASK_STATE_COMPLETED
        first = await client.list_tasks(ListTasksRequest(status=completed, page_size=2))
        second = await client.list_tasks(
            ListTasksRequest(status=completed, page_size=2, page_token=first.next_page_token)
        )
        running = await client.list_tasks(ListTasksRequest(status=TaskState.TASK_STATE_WORKING))
        since = ListTasksRequest(status_timestamp_after=last.status.timestamp)
        newest = await client.list_tasks(since)
    assert (first.total_size, second.total_size) == (3, 3)
    assert (len(first.tasks), len(second.tasks)) == (2, 1)
    assert (running.total_size, len(running.tasks)) == (0, 0)
    assert [each.id for each in newest.tasks] == [last.id]
    assert newest.total_size == 1


async def test_replies_without_a_task_are_neither_listed_nor_counted(stage: Stage) -> None:
    """A message that was the answer is no task, although a workflow gave it."""
    replica = await stage.replica(workflow=Planner, can_reply=True)
    async with replica.starter() as client:
        await streamed(client, request("hello"))
        task = await sent(client, request("plan"))
        found = await _listed(client, 1)
    assert [each.id for each in found.tasks] == [task.id]
    assert found.total_size == 1


async def test_a_tenant_lists_its_own_tasks_only(stage: Stage) -> None:
    """A list never shows what a single request would not."""
    replica = await stage.replica()
    async with replica.starter() as client:
        for tenant in ("one", "two"):
            wanted = request("a")
            wanted.tenant = tenant
            await sent(client, wanted)
        one = await _listed(client, 1, tenant="one")
        nobody = await client.list_tasks(ListTasksRequest())
    assert len(one.tasks) == 1
    assert len(nobody.tasks) == nobody.total_size == 0
