"""Follows a task from replica to replica with ``follow_task``, through connections that are cut."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from a2a.client import AuthInterceptor, ClientCallContext, CredentialService
from a2a.client.errors import A2AClientError
from a2a.types.a2a_pb2 import StreamResponse, TaskState
from a2a.utils.errors import TaskNotFoundError
from pydantic import SecretStr
from tests.temporal.a2a.agents import gate
from tests.temporal.a2a.replicas import (
    TRANSPORTS,
    Replica,
    Stage,
    Watcher,
    generations,
    request,
    sent,
    text_of,
)

from streamq import Settings
from streamq.a2a.client import follow_task
from streamq.access import mint_token, new_secret
from streamq.testing import FaultProxy


def _port(replica: Replica) -> int:
    return int(replica.url.rpartition(":")[2])


async def test_a_follower_goes_on_with_another_replica(stage: Stage) -> None:
    """A replica that dies costs a client no event; none is shown twice."""
    first, second = await stage.replica(), await stage.replica()
    async with FaultProxy("127.0.0.1", _port(first)) as proxy:
        # The card has to lead through the proxy, which leads to one replica or the other.
        seen = await stage.replica(url=f"http://{proxy.address}")
        async with seen.starter() as starter, seen.client() as client:
            task = await sent(starter, request("a b wait:one c wait:two d", at_once=True))
            watcher = Watcher(follow_task(client, task.id))
            await watcher.until(lambda seen: text_of(seen) == "a b ")
            proxy.redirect("127.0.0.1", _port(second))
            proxy.cut()
            gate("one").set()
            await watcher.until(lambda seen: text_of(seen) == "a b c ")
            proxy.refuse()
            proxy.cut()
            gate("two").set()
            await _ended(stage, task.id)
            proxy.accept()
            events = await watcher.end()
    assert text_of(events) == "a b c d "
    numbers = generations(events)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert [each.HasField("task") for each in events].count(True) == 1
    assert _state(events[-1]) == TaskState.TASK_STATE_COMPLETED


async def test_a_task_that_has_ended_is_shown_as_it_is(stage: Stage) -> None:
    """Who comes late gets the result, and no error."""
    replica = await stage.replica()
    async with replica.starter() as starter, replica.client() as client:
        task = await sent(starter, request("a"))
        async with aclosing(follow_task(client, task.id)) as following:
            [event] = [each async for each in following]
        with pytest.raises(TaskNotFoundError):
            await anext(follow_task(client, "unknown"))
    assert text_of([event]) == "a "
    assert _state(event) == TaskState.TASK_STATE_COMPLETED


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_refused_follower_asks_no_longer(
    stage: Stage, settings: Settings, transport: str
) -> None:
    """What is forbidden ends it at once; a token that is refused may be another one next time."""
    keyed = settings.model_copy(update={"token_key": SecretStr(new_secret())})
    replica = await stage.replica(settings=keyed)
    good, lists = (
        mint_token(subject="ada", every=True, actions=actions, settings=keyed)
        for actions in (["read", "list", "write"], ["list"])
    )
    async with replica.starter(transport, token=good) as starter:
        task = await sent(starter, request("a"))
    tries = []
    for given in (["bad"], [lists], ["bad", good]):
        credential = _Credentials(given)
        auth = AuthInterceptor(credential)
        async with replica.client(transport, interceptor=auth) as client, asyncio.timeout(20):
            if good in given:
                [event] = [each async for each in follow_task(client, task.id)]
                assert text_of([event]) == "a "
            else:
                with pytest.raises(A2AClientError, match=r"Error (40[13]|UNAUTH|PERMISSION)"):
                    await anext(follow_task(client, task.id))
        tries.append(credential.asked)
    assert tries == [2, 1, 3]  # of the last one is the task, which has ended


class _Credentials(CredentialService):
    """Gives one token after the other, and then the last one again."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self.asked = tokens, 0

    async def get_credentials(
        self, security_scheme_name: str, context: ClientCallContext | None
    ) -> str:
        self.asked += 1
        return self._tokens[min(self.asked, len(self._tokens)) - 1]


def _state(event: StreamResponse) -> TaskState:
    if event.HasField("task"):
        return event.task.status.state
    return event.status_update.status.state


async def _ended(stage: Stage, task_id: str) -> None:
    await stage.client.get_workflow_handle(task_id).result()
