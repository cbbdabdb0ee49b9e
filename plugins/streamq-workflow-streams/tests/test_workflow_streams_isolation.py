"""The rights of the page about tenants: enough for a tenant, and none for its neighbours."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import trustme
from temporalio.api.command.v1 import (
    Command,
    SignalExternalWorkflowExecutionCommandAttributes,
)
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import CommandType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeTaskQueueRequest,
    ListNamespacesRequest,
    PollWorkflowTaskQueueRequest,
    RespondWorkflowTaskCompletedRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode, TLSConfig
from tests.isolation import code_blocks, finds_nothing, tells_whole_story, written_stream
from tests.temporal.support.secure_frontend import secure_frontend

from streamq.devserver import FAST, TemporalDevServer
from streamq.devserver._temporal import find_temporal
from streamq.driver import AccessDeniedError, ChunkQueue, QueueOptions, StreamId
from streamq_workflow_streams import WorkflowStreamsDriver, WorkflowStreamsSettings
from streamq_workflow_streams.host._running import run_hosts

TENANTS = ("acme", "globex")
COMMAND, CLAIMS, DYNAMIC, ENVIRONMENT = code_blocks("workflow_streams")
OPTIONS = QueueOptions(ttl=timedelta(minutes=5))


@dataclass(frozen=True)
class Place:
    """A server that demands keys.

    Attributes:
        address: Of its frontend.
        directory: Where each tenant has a file with its key.
        ca: File with the authority of the frontend's certificate.
    """

    address: str
    directory: Path
    ca: Path

    def settings(self, tenant: str, **options: object) -> WorkflowStreamsSettings:
        """Return the settings of the page, for a tenant."""
        lines = ENVIRONMENT.replace("acme", tenant).splitlines()
        variables = dict(line.split("=", 1) for line in lines)
        file = Path(variables["STREAMQ_WORKFLOW_STREAMS_API_KEY_FILE"]).name
        known: dict[str, object] = {
            "address": self.address,
            "namespace": variables["STREAMQ_WORKFLOW_STREAMS_NAMESPACE"],
            "api_key_file": self.directory / file,
            "tls_server_ca": self.ca,
            "listing_delay_seconds": 0.3,
        }
        return WorkflowStreamsSettings(**{**known, **options})  # type: ignore[arg-type]

    async def client(self, tenant: str, namespace: str) -> Client:
        """Connect past the driver, with the key of a tenant."""
        return await Client.connect(
            self.address,
            namespace=namespace,
            api_key=(self.directory / tenant).read_text(),
            tls=TLSConfig(server_root_ca_cert=self.ca.read_bytes()),
            lazy=True,
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Start a server with the namespaces of the page, and a frontend that checks their claims."""
    directory, authority = tmp_path_factory.mktemp("keys"), trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    dynamic = dict(line.split("=", 1) for line in DYNAMIC.splitlines())
    with (
        TemporalDevServer(dynamic_config={**FAST, **dynamic}) as server,
        secure_frontend(server.address, authority.issue_cert("localhost")) as frontend,
    ):
        for tenant in TENANTS:
            program, *arguments = shlex.split(COMMAND.replace("acme", tenant))
            assert program == "temporal"
            command = [str(find_temporal()), *arguments, "--address", server.address]
            subprocess.run(command, check=True, capture_output=True, timeout=60)
            key = f"key-{uuid.uuid4().hex}"
            (directory / tenant).write_text(key)
            frontend.permissions[key] = json.loads(CLAIMS.replace("acme", tenant))["permissions"]
        yield Place(frontend.address, directory, directory / "ca.pem")


@pytest.fixture
async def open_for(place: Place) -> AsyncIterator[Callable[[str], Awaitable[ChunkQueue]]]:
    """Return a function that opens a queue with the rights of a tenant, whose hosts run."""
    stopped = asyncio.Event()
    workers: dict[str, asyncio.Task[None]] = {}
    queues: list[ChunkQueue] = []

    async def opened(tenant: str) -> ChunkQueue:
        settings = place.settings(tenant)
        if tenant not in workers:
            workers[tenant] = asyncio.create_task(run_hosts(settings, stopped))
        queues.append(await WorkflowStreamsDriver.open(OPTIONS, settings))
        return queues[-1]

    yield opened
    for queue in queues:
        await queue.aclose()
    stopped.set()
    await asyncio.gather(*workers.values())


async def test_tenant_can_do_everything_with_its_own_streams(
    open_for: Callable[[str], Awaitable[ChunkQueue]],
) -> None:
    """Rights that lack something are widened in a hurry, and then to everything."""
    await tells_whole_story(await open_for("acme"), await open_for("acme"), "acme")


async def test_tenant_finds_nothing_of_another_through_the_driver(
    open_for: Callable[[str], Awaitable[ChunkQueue]], place: Place
) -> None:
    """Neither in its own namespace nor in that of the other, which may as well not be there."""
    owner = await open_for("globex")
    theirs = await written_stream(owner, "globex")
    before = await owner.describe(theirs, last=9)
    await finds_nothing(await open_for("acme"), theirs)
    assert (await owner.describe(theirs, last=9)).last == before.last
    refusals = []
    for namespace in ("globex", "absent"):
        with pytest.raises(AccessDeniedError) as refused:
            await WorkflowStreamsDriver.open(OPTIONS, place.settings("acme", namespace=namespace))
        refusals.append(str(refused.value).replace(namespace, "NAMESPACE"))
    assert refusals[0] == refusals[1]


async def test_tenant_gets_nothing_of_another_through_a_bare_client(
    open_for: Callable[[str], Awaitable[ChunkQueue]], place: Place
) -> None:
    """Whoever has the key does not have to use streamq."""
    theirs = await written_stream(await open_for("globex"), "globex")
    for namespace in ("globex", "absent"):
        for call in forbidden(await place.client("acme", namespace), theirs):
            with pytest.raises(RPCError) as refused:
                await call()
            assert refused.value.status is RPCStatusCode.PERMISSION_DENIED


def forbidden(client: Client, theirs: StreamId) -> list[Callable[[], Awaitable[object]]]:
    """Return calls in the namespace of a client, on a host and without one."""
    host = client.get_workflow_handle(f"streamq-host/{theirs}")
    service, namespace = client.workflow_service, client.namespace
    task_queue = TaskQueue(name="streamq-host")
    return [
        host.describe,
        host.fetch_history,
        host.terminate,
        host.cancel,
        partial(host.signal, "any"),
        partial(host.query, "any"),
        partial(host.execute_update, "streamq_trim", 1),
        client.count_workflows,
        lambda: anext(aiter(client.list_workflows())),
        lambda: client.start_workflow("any", id="any", task_queue="any"),
        partial(service.describe_namespace, DescribeNamespaceRequest(namespace=namespace)),
        partial(service.list_namespaces, ListNamespacesRequest()),
        partial(
            service.poll_workflow_task_queue,
            PollWorkflowTaskQueueRequest(namespace=namespace, task_queue=task_queue),
        ),
        partial(
            service.describe_task_queue,
            DescribeTaskQueueRequest(namespace=namespace, task_queue=task_queue),
        ),
    ]


async def test_workflow_of_a_tenant_cannot_signal_into_another_namespace(
    open_for: Callable[[str], Awaitable[ChunkQueue]], place: Place
) -> None:
    """The claims of a key say nothing about what a workflow of its namespace commands."""
    theirs = await written_stream(await open_for("globex"), "globex")
    client = await place.client("acme", "acme")
    queue = f"bare-{uuid.uuid4()}"
    await client.start_workflow(
        "any", id=queue, task_queue=queue, task_timeout=timedelta(seconds=20)
    )
    service = client.workflow_service
    task = await service.poll_workflow_task_queue(
        PollWorkflowTaskQueueRequest(namespace="acme", task_queue=TaskQueue(name=queue))
    )
    command = Command(
        command_type=CommandType.COMMAND_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION,
        signal_external_workflow_execution_command_attributes=(
            SignalExternalWorkflowExecutionCommandAttributes(
                namespace="globex",
                execution=WorkflowExecution(workflow_id=f"streamq-host/{theirs}"),
                signal_name="any",
            )
        ),
    )
    with pytest.raises(RPCError, match="cross namespace"):
        await service.respond_workflow_task_completed(
            RespondWorkflowTaskCompletedRequest(
                namespace="acme", task_token=task.task_token, commands=[command]
            )
        )
    await client.get_workflow_handle(queue).terminate()
