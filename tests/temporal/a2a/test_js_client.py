"""The client of A2A in JavaScript, unchanged, over all three transports."""

from __future__ import annotations

from pathlib import Path

import pytest
from a2a.types.a2a_pb2 import TaskState
from tests.temporal.a2a.agents import Planner, gate
from tests.temporal.a2a.js_client import node_process, running_client, said
from tests.temporal.a2a.receivers import push_settings, receiving
from tests.temporal.a2a.replicas import TRANSPORTS, Stage, text_of

EXAMPLE = Path(__file__).parents[3] / "docs/examples/a2a_client.mjs"
every_transport = pytest.mark.parametrize("transport", TRANSPORTS)


async def test_the_documented_client_shows_how_the_text_grows(stage: Stage, tmp_path: Path) -> None:
    """The page's program works as it stands, with no more of a message than it gives."""
    replica = await stage.replica()
    arguments = (replica.url, "a b fail c")
    async with node_process(tmp_path, EXAMPLE.read_text(), *arguments) as process:
        output, _ = await process.communicate()
    assert process.returncode == 0
    assert output.decode().splitlines() == [
        "state 2",
        *("a ", "a b "),
        *("a ", "a b ", "a b c ", "a b c "),
        "state 3",
    ]


@every_transport
async def test_a_blocking_request_gets_the_whole_task(
    stage: Stage, tmp_path: Path, transport: str
) -> None:
    """What does not stream gets everything with the answer, and reads it again later."""
    replica = await stage.replica()
    body = """
      const task = await client.sendMessage(request("a b c"));
      const again = await client.getTask({ tenant: "", id: task.id, historyLength: 0 });
      const { tasks } = await client.listTasks({ tenant: "", contextId: task.contextId, status: 0,
        pageToken: "", statusTimestampAfter: undefined });
      say([task.status.state, texts(task.artifacts[0]), task.history.length]);
      say([texts(again.artifacts[0]), again.history.length, again.metadata.generation]);
      say(tasks.map(({ id }) => id === task.id));
    """
    task, again, listed = await said(tmp_path, transport, [replica.url], body)
    assert task == [TaskState.TASK_STATE_COMPLETED, "a b c ", 1]
    assert again == ["a b c ", 0, 6]
    assert listed == [True]


@every_transport
async def test_a_stream_brings_each_chunk_and_then_the_end(
    stage: Stage, tmp_path: Path, transport: str
) -> None:
    """The artifact grows with each event, from the first chunk to the last."""
    replica = await stage.replica()
    body = """
      const events = [];
      for await (const each of client.sendMessageStream(request("a b c"))) events.push(each);
      const updates = events.filter(({ payload }) => payload.$case === "artifactUpdate");
      say(kinds(events));
      say(updates.map(({ payload: { value } }) => [value.append, value.lastChunk]));
      say(events.map(({ payload: { value } }) => value.metadata.generation));
      say([textOf(events), state(events.at(-1))]);
    """
    kinds, updates, numbers, end = await said(tmp_path, transport, [replica.url], body)
    assert kinds == ["task", "statusUpdate", *["artifactUpdate"] * 4, "statusUpdate"]
    assert updates == [[False, False], [True, False], [True, False], [True, True]]
    assert numbers == list(range(7))
    assert end == ["a b c ", TaskState.TASK_STATE_COMPLETED]


@every_transport
async def test_a_late_subscriber_on_another_replica_misses_nothing(
    stage: Stage, tmp_path: Path, transport: str
) -> None:
    """It gets the task as it is, and then each event once."""
    first, second = await stage.replica(), await stage.replica()
    body = """
      const started = client.sendMessageStream(request("a b wait:js c"));
      const { value: { payload: { value: task } } } = await started.next();
      const early = [];
      for await (const each of started) {
        early.push(each);
        if (textOf(early) === "a b ") break;
      }
      const events = [];
      for await (const each of other.resubscribeTask({ tenant: "", id: task.id })) {
        events.push(each);
        if (events.length === 1) say(textOf(events));
      }
      say([kinds(events)[0], textOf(events), state(events.at(-1))]);
      say(events.map(({ payload: { value } }) => value.metadata.generation));
    """.replace("wait:js", f"wait:js-{transport}")
    urls = [first.url, second.url]
    async with running_client(tmp_path, transport, urls, body) as script:
        assert await script.line() == "a b "
        gate(f"js-{transport}").set()
        end, numbers = await script.rest()
    assert end == ["task", "a b c ", TaskState.TASK_STATE_COMPLETED]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@every_transport
async def test_cancelling_waits_for_the_end(stage: Stage, tmp_path: Path, transport: str) -> None:
    """The answer is the cancelled task; a second cancellation, and an unknown task, are errors."""
    replica = await stage.replica()
    body = """
      const started = client.sendMessageStream(request("a wait:js-never"));
      const { value: { payload: { value: { id } } } } = await started.next();
      const events = [];
      let task;
      for await (const each of started) {
        events.push(each);
        if (!task && textOf(events) === "a ") {
          task = await client.cancelTask({ tenant: "", id, metadata: undefined });
        }
      }
      say([task.status.state, texts(task.artifacts[0]), state(events.at(-1))]);
      const failed = async (call) => call.then(() => "", (error) => error.constructor.name);
      say(await failed(client.cancelTask({ tenant: "", id, metadata: undefined })));
      say(await failed(client.getTask({ tenant: "", id: "unknown" })));
    """.replace("js-never", f"js-never-{transport}")
    cancelled = TaskState.TASK_STATE_CANCELED
    end, again, unknown = await said(tmp_path, transport, [replica.url], body)
    assert end == [cancelled, "a ", cancelled]
    assert again.endswith("TaskNotCancelableError")
    assert unknown.endswith("TaskNotFoundError")


@every_transport
async def test_a_question_is_answered_to_another_replica(
    stage: Stage, tmp_path: Path, transport: str
) -> None:
    """The stream ends with the question; the stream of the answer ends with the task."""
    first = await stage.replica(workflow=Planner)
    second = await stage.replica(workflow=Planner)
    body = """
      const asked = [], answered = [];
      for await (const each of client.sendMessageStream(request("plan"))) asked.push(each);
      const { id: taskId, contextId } = asked[0].payload.value;
      const question = asked.at(-1).payload.value.status;
      say([question.state, question.message.parts[0].content.value]);
      const answer = request("Monday", { taskId, contextId });
      for await (const each of other.sendMessageStream(answer)) answered.push(each);
      say([textOf(answered, "answer"), state(answered.at(-1))]);
    """
    question, answer = await said(tmp_path, transport, [first.url, second.url], body)
    assert question == [TaskState.TASK_STATE_INPUT_REQUIRED, "On which day?"]
    assert answer == ["Monday", TaskState.TASK_STATE_COMPLETED]


@every_transport
@pytest.mark.parametrize("settings", [push_settings()], ids=["push"])
async def test_notifications_go_where_the_client_wants_them(
    stage: Stage, tmp_path: Path, transport: str
) -> None:
    """It names a receiver with the message and another one later, lists both and deletes one."""
    first, second = await stage.replica(), await stage.replica()
    body = """
      const config = (id, url, taskId = "") => ({
        tenant: "", id, taskId, url, token: "a-token",
        authentication: { scheme: "Bearer", credentials: "secret" },
      });
      const wanted = request("a wait:js-push b", { atOnce: true });
      wanted.configuration.taskPushNotificationConfig = config("one", given.one);
      const { id: taskId } = await client.sendMessage(wanted);
      await client.createTaskPushNotificationConfig(config("two", given.two, taskId));
      await client.createTaskPushNotificationConfig(config("three", given.two + "/3", taskId));
      await other.deleteTaskPushNotificationConfig({ tenant: "", taskId, id: "three" });
      const found = await other.getTaskPushNotificationConfig({ tenant: "", taskId, id: "one" });
      const { configs } = await other.listTaskPushNotificationConfig(
        { tenant: "", taskId, pageSize: 0, pageToken: "" });
      say([found.url === given.one, configs.map(({ id }) => id)]);
    """.replace("js-push", f"js-push-{transport}")
    urls = [first.url, second.url]
    async with receiving() as one, receiving() as two:
        given = {"one": one.url, "two": two.url}
        [answer] = await said(tmp_path, transport, urls, body, **given)
        gate(f"js-push-{transport}").set()
        events, later = await one.end(), await two.end()
    assert answer == [True, ["one", "two"]]
    assert text_of(events) == "a b "
    assert later == events[-len(later) :]
    assert one.taken[0].headers["authorization"] == "Bearer secret"
