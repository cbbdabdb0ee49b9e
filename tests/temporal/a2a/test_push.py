"""Push notifications: the operations on where they go, by the SDK's client on every transport."""

from __future__ import annotations

from typing import Any

import pytest
from a2a.client.errors import A2AClientError
from a2a.types.a2a_pb2 import (
    AuthenticationInfo,
    DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest,
    ListTaskPushNotificationConfigsRequest,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import (
    InvalidParamsError,
    PushNotificationNotSupportedError,
    TaskNotFoundError,
)
from tests.temporal.a2a.agents import Planner, gate
from tests.temporal.a2a.receivers import push_settings
from tests.temporal.a2a.replicas import TRANSPORTS, Stage, request, sent

from streamq import Settings
from streamq.access import mint_token, new_secret

_URL = "https://receiver.invalid/hook"


@pytest.fixture
def settings() -> Settings:
    return push_settings()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_config_is_set_found_listed_and_deleted(stage: Stage, transport: str) -> None:
    """Any replica answers for what another one has set, also after the task has ended."""
    both = [await stage.replica() for _ in "ab"]
    async with both[0].starter(transport) as client, both[1].starter(transport) as other:
        task = await sent(client, request("a"))
        wanted = TaskPushNotificationConfig(
            task_id=task.id,
            id="mine",
            url=_URL,
            token="a-token",
            authentication=AuthenticationInfo(scheme="Bearer", credentials="secret"),
        )
        created = await client.create_task_push_notification_config(wanted)
        which = GetTaskPushNotificationConfigRequest(task_id=task.id, id="mine")
        found = await other.get_task_push_notification_config(which)
        every = ListTaskPushNotificationConfigsRequest(task_id=task.id)
        listed = await other.list_task_push_notification_configs(every)
        delete = DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="mine")
        for _ in range(2):
            await other.delete_task_push_notification_config(delete)
        with pytest.raises(TaskNotFoundError):
            await client.get_task_push_notification_config(which)
        assert not (await client.list_task_push_notification_configs(every)).configs
    assert created == found == wanted
    assert list(listed.configs) == [wanted]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_task_of_others_has_no_configs(stage: Stage, transport: str) -> None:
    """Who may not see a task learns nothing of where its events go, and adds nothing."""
    replica = await stage.replica()
    async with replica.starter(transport) as client:
        wanted = request(f"a wait:push-{transport}", at_once=True)
        wanted.tenant = "one"
        task = await sent(client, wanted)
        mine = TaskPushNotificationConfig(task_id=task.id, id="x", url=_URL, tenant="one")
        await client.create_task_push_notification_config(mine)
        for tenant, task_id in (("two", task.id), ("", task.id), ("one", "unknown")):
            fields: dict[str, Any] = {"tenant": tenant, "task_id": task_id}
            for run in (
                client.create_task_push_notification_config(
                    TaskPushNotificationConfig(url=_URL, **fields)
                ),
                client.get_task_push_notification_config(
                    GetTaskPushNotificationConfigRequest(id="x", **fields)
                ),
                client.list_task_push_notification_configs(
                    ListTaskPushNotificationConfigsRequest(**fields)
                ),
                client.delete_task_push_notification_config(
                    DeleteTaskPushNotificationConfigRequest(id="x", **fields)
                ),
            ):
                with pytest.raises(TaskNotFoundError):
                    await run
        gate(f"push-{transport}").set()


async def test_configs_come_in_pages(stage: Stage) -> None:
    """A client that asks for pages gets each config once, and the task has a bound of them."""
    replica = await stage.replica()
    async with replica.starter() as client:
        task = await sent(client, request("a"))
        names = [f"c{number:02}" for number in range(20)]
        for name in names:
            await client.create_task_push_notification_config(
                TaskPushNotificationConfig(task_id=task.id, id=name, url=_URL)
            )
        with pytest.raises(InvalidParamsError, match="at most 20"):
            await client.create_task_push_notification_config(
                TaskPushNotificationConfig(task_id=task.id, id="more", url=_URL)
            )
        found, token = [], ""
        while True:
            page = await client.list_task_push_notification_configs(
                ListTaskPushNotificationConfigsRequest(
                    task_id=task.id, page_size=8, page_token=token
                )
            )
            assert len(page.configs) <= 8
            found += [each.id for each in page.configs]
            if not (token := page.next_page_token):
                break
        refused: list[dict[str, Any]] = [{"page_size": 101}, {"page_size": -1}, {"page_token": "?"}]
        for bad in refused:
            with pytest.raises(InvalidParamsError):
                await client.list_task_push_notification_configs(
                    ListTaskPushNotificationConfigsRequest(task_id=task.id, **bad)
                )
    assert found == names


async def test_a_config_without_an_id_gets_one_of_its_receiver(stage: Stage) -> None:
    """A client that repeats a request whose answer it has missed does not get everything twice."""
    replica = await stage.replica()
    async with replica.starter() as client:
        task = await sent(client, request("a"))
        mine = TaskPushNotificationConfig(task_id=task.id, url=_URL)
        ids = [(await client.create_task_push_notification_config(mine)).id for _ in "ab"]
        mine.url += "/2"
        ids.append((await client.create_task_push_notification_config(mine)).id)
    assert ids[0]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_agent_without_notifications_says_so(stage: Stage, transport: str) -> None:
    """The card and each operation agree, and a message that wants them starts nothing."""
    replica = await stage.replica(push_notifications=False)
    assert not replica.agent.served_card().capabilities.push_notifications
    wanted = request("a")
    wanted.configuration.task_push_notification_config.url = _URL
    async with replica.starter(transport) as client:
        for run in (
            client.create_task_push_notification_config(
                TaskPushNotificationConfig(task_id="x", url=_URL)
            ),
            client.get_task_push_notification_config(
                GetTaskPushNotificationConfigRequest(task_id="x", id="x")
            ),
            client.list_task_push_notification_configs(
                ListTaskPushNotificationConfigsRequest(task_id="x")
            ),
            client.delete_task_push_notification_config(
                DeleteTaskPushNotificationConfigRequest(task_id="x", id="x")
            ),
            sent(client, wanted),
        ):
            with pytest.raises(PushNotificationNotSupportedError):
                await run


async def test_a_message_instead_of_a_task_has_no_configs(stage: Stage) -> None:
    """What was answered with a message is no task."""
    replica = await stage.replica(workflow=Planner, can_reply=True)
    assert replica.agent.served_card().capabilities.push_notifications
    async with replica.starter() as client:
        [answer] = [each async for each in client.send_message(request("hello"))]
        with pytest.raises(TaskNotFoundError):
            await client.create_task_push_notification_config(
                TaskPushNotificationConfig(task_id=answer.message.task_id, url=_URL)
            )


async def test_a_token_that_only_reads_neither_sets_nor_reads_a_config(stage: Stage) -> None:
    """Configs have credentials, and send the task elsewhere: they need the right to write."""
    keyed = push_settings(token_key=new_secret())
    replica = await stage.replica(settings=keyed)
    writer = mint_token(every=True, actions=("read", "write"), settings=keyed)
    reader = mint_token(every=True, actions=("read",), settings=keyed)
    async with replica.starter(token=writer) as client, replica.starter(token=reader) as other:
        task = await sent(client, request("a"))
        mine = TaskPushNotificationConfig(task_id=task.id, id="mine", url=_URL)
        await client.create_task_push_notification_config(mine)
        for run in (
            other.create_task_push_notification_config(mine),
            other.get_task_push_notification_config(
                GetTaskPushNotificationConfigRequest(task_id=task.id, id="mine")
            ),
            other.list_task_push_notification_configs(
                ListTaskPushNotificationConfigsRequest(task_id=task.id)
            ),
            other.delete_task_push_notification_config(
                DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="mine")
            ),
        ):
            with pytest.raises(A2AClientError, match="403"):
                await run
