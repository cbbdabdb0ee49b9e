"""Push notifications for the client of A2A in JavaScript, unchanged, over all three transports."""

from __future__ import annotations

from pathlib import Path

import pytest
from a2a.types.a2a_pb2 import TaskState
from tests.temporal.a2a.js_client import said
from tests.temporal.a2a.receivers import push_settings, receiving
from tests.temporal.a2a.replicas import TRANSPORTS, Stage, generations, text_of

from streamq import Settings


@pytest.fixture
def settings() -> Settings:
    return push_settings()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_receiver_gets_the_stream_and_its_config_is_managed(
    stage: Stage, tmp_path: Path, transport: str
) -> None:
    """The receiver that the message names gets every event; configs are read, set and deleted."""
    first, second = await stage.replica(), await stage.replica()
    body = """
      const config = (fields) => ({ tenant: "", id: "", taskId: "", url: given.hook,
        token: "a-token", authentication: undefined, ...fields });
      const asked = request("a b c");
      asked.configuration.taskPushNotificationConfig = config({ id: "mine" });
      const events = [];
      for await (const each of client.sendMessageStream(asked)) events.push(each);
      const taskId = events[0].payload.value.id;
      const place = { tenant: "", taskId, id: "mine" };
      const found = await other.getTaskPushNotificationConfig(place);
      say([events.length, found.id, found.url, found.token]);
      const url = "https://receiver.invalid/hook";
      await client.createTaskPushNotificationConfig(config({ id: "later", taskId, url }));
      const listed = async () => (await other.listTaskPushNotificationConfig(
        { tenant: "", taskId, pageSize: 0, pageToken: "" })).configs.map(({ id }) => id).sort();
      say(await listed());
      await other.deleteTaskPushNotificationConfig({ ...place, id: "later" });
      say(await listed());
    """
    async with receiving() as receiver:
        urls = [first.url, second.url]
        found, both, one = await said(tmp_path, transport, urls, body, hook=receiver.url)
        pushed = await receiver.end()
    assert found == [7, "mine", receiver.url, "a-token"]
    assert (both, one) == (["later", "mine"], ["mine"])
    assert generations(pushed) == list(range(7))
    assert text_of(pushed) == "a b c "
    assert pushed[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED
    assert {each.headers["x-a2a-notification-token"] for each in receiver.requests} == {"a-token"}
