"""The programs of the migration guide run as they stand, the old ones beside the new ones."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from temporalio.client import Client
from temporalio.worker import Worker

from streamq.devserver import TemporalDevServer, free_port
from streamq.gateway import create_app, serve
from streamq.temporal import StreamqPlugin
from streamq_redis.embedded import EmbeddedRedis

PROGRAMS = Path(__file__).parents[2] / "docs/examples/migrating"
KINDS = ("batch", "redis_list", "pubsub", "workflow_streams", "resumable")
TEXT = "The lighthouse says nothing, and the sea repeats it. "
TWICE = "The lighthouse says " + TEXT


@pytest.fixture(scope="module")
def variables() -> Iterator[dict[str, str]]:
    """The variables with which programs reach Temporal and Redis."""
    with TemporalDevServer() as temporal, EmbeddedRedis() as redis:
        yield {
            "TEMPORAL_ADDRESS": temporal.address,
            "STREAMQ_TEMPORAL_ADDRESS": temporal.address,
            "STREAMQ_BACKEND": "redis",
            "STREAMQ_REDIS_URL": redis.url,
            "REDIS_URL": redis.url,
            "RELAY_PORT": str(free_port()),
        }


@pytest.fixture
def environment(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """These variables, also in this process."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(str(PROGRAMS))
    return variables


@pytest.fixture
async def client(environment: dict[str, str]) -> Client:
    return await Client.connect(environment["TEMPORAL_ADDRESS"])


@pytest.fixture
async def gateway(environment: dict[str, str]) -> AsyncIterator[None]:
    """The gateway that the new relay is."""
    async with serve(create_app(), port=int(environment["RELAY_PORT"])):
        yield


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PROGRAMS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def ask(client: Client, name: str, prompt: str) -> str:
    """Ask as the program does, on a worker of its own."""
    program = load(name)
    activities = [getattr(program, each) for each in ("answer", "pop") if hasattr(program, each)]
    plugins = [StreamqPlugin()] if name.endswith("_after") else []
    queue = next(
        node.value.value
        for node in ast.walk(ast.parse((PROGRAMS / f"{name}.py").read_text()))
        if isinstance(node, ast.keyword)
        and node.arg == "task_queue"
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
    async with Worker(
        client, task_queue=queue, workflows=[program.Chat], activities=activities, plugins=plugins
    ):
        return str(await program.ask(client, f"chat-{uuid.uuid4()}", prompt, []))


@pytest.mark.parametrize(
    "name",
    [f"{kind}_after" for kind in KINDS]
    + [pytest.param(f"{kind}_before", marks=pytest.mark.full) for kind in KINDS],
)
def test_a_program_runs_as_it_stands(environment: dict[str, str], name: str) -> None:
    """What people copy works."""
    assert run_as_it_stands(name, "a lighthouse", environment) == TEXT + "\n"


def test_after_a_retry_the_old_relay_tells_some_twice(environment: dict[str, str]) -> None:
    """Those who resume by a count get what the list has."""
    shown = run_as_it_stands("resumable_before", "a flaky lighthouse", environment)
    assert shown == TWICE + "\n"


def run_as_it_stands(name: str, prompt: str, environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, str(PROGRAMS / f"{name}.py"), prompt],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # A thread of Temporal's core may abort a Python that is ending, when everything is done.
    assert done.returncode == 0 or "PyGILState_Release" in done.stderr, done.stderr
    return done.stdout


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("kind", KINDS)
async def test_after_a_retry_the_new_program_shows_the_answer_once(
    client: Client, kind: str
) -> None:
    """The words of the attempt that failed are taken back."""
    assert await ask(client, f"{kind}_after", "a flaky lighthouse") == TEXT


@pytest.mark.parametrize(
    ("kind", "shown"),
    [("batch", TEXT), ("redis_list", TWICE), ("pubsub", TWICE), ("workflow_streams", TWICE)],
)
async def test_after_a_retry_the_old_program_tells_some_twice(
    client: Client, kind: str, shown: str
) -> None:
    """This is what the guide says of them; only the batch is right, and late."""
    assert await ask(client, f"{kind}_before", "a flaky lighthouse") == shown


@pytest.mark.usefixtures("gateway")
@pytest.mark.parametrize("kind", KINDS[1:])
async def test_a_failure_for_good_ends_the_new_reader(client: Client, kind: str) -> None:
    """Its reader gets the end with the words until then."""
    async with asyncio.timeout(30):
        assert await ask(client, f"{kind}_after", "a forbidden lighthouse") == TEXT[:20]


@pytest.mark.full
@pytest.mark.parametrize("kind", ["redis_list", "pubsub", "resumable"])
def test_a_failure_for_good_leaves_the_old_reader_hanging(
    environment: dict[str, str], kind: str
) -> None:
    """No end comes: nobody is left to write it."""
    program = [sys.executable, str(PROGRAMS / f"{kind}_before.py"), "a forbidden lighthouse"]
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(
            program, env=os.environ | environment, capture_output=True, timeout=12, check=False
        )


async def test_a_failure_for_good_looks_like_an_end_to_readers_of_workflow_streams(
    client: Client,
) -> None:
    """The SDK's subscription ends with the workflow, and does not say how."""
    assert await ask(client, "workflow_streams_before", "a forbidden lighthouse") == TEXT[:20]
