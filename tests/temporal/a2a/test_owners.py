"""A caller finds nothing that another one has named or set, over all transports."""

from __future__ import annotations

import httpx
import pytest
from a2a.types.a2a_pb2 import (
    DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest,
    ListTaskPushNotificationConfigsRequest,
    TaskPushNotificationConfig,
)
from a2a.utils.errors import TaskNotFoundError
from pydantic import SecretStr
from tests.temporal.a2a.replicas import TRANSPORTS, Stage, request, sent
from tests.temporal.a2a.test_access import status, token

from streamq import Settings
from streamq.a2a._extension import EVENT_IDS
from streamq.access import new_secret

_VERSION = {"A2A-Version": "1.0"}


@pytest.fixture
def keyed(settings: Settings) -> Settings:
    """Settings with a key for tokens, under which nothing is sent for long."""
    permitted = {"a2a_push_networks": "127.0.0.0/8", "a2a_push_http": True}
    key = SecretStr(new_secret())
    return settings.model_copy(
        update={"token_key": key, "a2a_push_retry_seconds": 0.0, **permitted}
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_push_configs_of_others_are_not_there(
    stage: Stage, keyed: Settings, transport: str
) -> None:
    """They have credentials: another subject or tenant finds no task, a reader may not see them."""
    replica = await stage.replica(settings=keyed)
    async with replica.starter(transport, token=token(keyed)) as client:
        task = await sent(client, request("a"))
        mine = TaskPushNotificationConfig(task_id=task.id, id="one", url="http://127.0.0.1:1/")
        await client.create_task_push_notification_config(mine)
    get = GetTaskPushNotificationConfigRequest(task_id=task.id, id="one")
    everything = ListTaskPushNotificationConfigsRequest(task_id=task.id)
    delete = DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="one")
    for other in (token(keyed, "eve"), token(keyed, tenant="far")):
        async with replica.client(transport, token=other) as client:
            with pytest.raises(TaskNotFoundError):
                await client.create_task_push_notification_config(mine)
            with pytest.raises(TaskNotFoundError):
                await client.get_task_push_notification_config(get)
            with pytest.raises(TaskNotFoundError):
                await client.list_task_push_notification_configs(everything)
            with pytest.raises(TaskNotFoundError):
                await client.delete_task_push_notification_config(delete)
    reads = token(keyed, actions=["read", "list"])
    async with replica.client(transport, token=reads) as client:
        assert await status(client.get_task_push_notification_config(get)) == 403
        assert await status(client.list_task_push_notification_configs(everything)) == 403
        assert await status(client.delete_task_push_notification_config(delete)) == 403
    async with replica.client(transport, token=token(keyed)) as client:
        found = await client.list_task_push_notification_configs(everything)
    assert [each.id for each in found.configs] == ["one"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_message_id_of_another_caller_is_free(
    stage: Stage, keyed: Settings, transport: str
) -> None:
    """Two callers that send the same message, in a context of the same name, have two tasks."""
    replica = await stage.replica(settings=keyed, message_ids_are_unique=True)
    named, bare = request("a", context_id="talk"), request("a")
    ids = set()
    for caller in (token(keyed), token(keyed, "eve"), token(keyed, tenant="far")):
        async with replica.starter(transport, token=caller) as client:
            ids |= {(await sent(client, named)).id, (await sent(client, bare)).id}
    assert len(ids) == 6


async def test_the_last_event_id_opens_no_task_of_others(stage: Stage, keyed: Settings) -> None:
    """A subscription that continues is a subscription."""
    replica = await stage.replica(settings=keyed)
    async with replica.starter(token=token(keyed)) as client:
        task = await sent(client, request("a"))
    found = []
    async with httpx.AsyncClient(base_url=replica.url, headers=_VERSION) as http:
        for caller in (token(keyed), token(keyed, "eve"), token(keyed, tenant="far")):
            headers = {"A2A-Extensions": EVENT_IDS, "Last-Event-ID": "0"}
            bearer = {"Authorization": f"Bearer {caller}"}
            answer = await http.post(f"/tasks/{task.id}:subscribe", headers=headers | bearer)
            found.append((answer.status_code, "statusUpdate" in answer.text))
    assert found == [(200, True), (404, False), (404, False)]


async def test_an_unknown_id_is_shown_in_short_and_in_one_line(
    stage: Stage, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors are logged: whoever sends one writes no lines of his own there, and no megabytes."""
    replica = await stage.replica(settings=settings)
    async with httpx.AsyncClient(base_url=replica.url, headers=_VERSION) as http:
        body = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "a\nERROR forged"}}
        lines = await http.post("/", json=body)
        long = await http.get("/tasks/" + "a" * 20_000)
        tenant = await http.get(f"/{'t' * 300}/tasks/a")
    assert "a%0AERROR forged" in lines.json()["error"]["message"]
    assert (long.status_code, tenant.status_code) == (404, 400)
    assert "\nERROR forged" not in caplog.text
    assert len(long.text) < 1_000
