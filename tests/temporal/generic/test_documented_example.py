"""The documented example of the generic workflow, with the ``temporal`` command line."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from temporalio.client import Client
from temporalio.worker import Worker

from streamq import Settings
from streamq.devserver import find_temporal
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin

DOCS = Path(__file__).parents[3] / "docs"


def documented() -> str:
    text = (DOCS / "temporal.md").read_text()
    found = re.search(r"```console\n(temporal workflow start .*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hello", DOCS / "examples/hello.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def run(script: str, address: str) -> str:
    """Run shell commands with ``temporal`` on the path."""
    path = f"{find_temporal().parent}{os.pathsep}{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-ec",
        script,
        env={**os.environ, "PATH": path, "TEMPORAL_ADDRESS": address},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def test_the_documented_commands_work_as_they_stand(
    temporal_address: str, client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """Somebody without Python copies these lines first."""
    async with Worker(
        client,
        task_queue="poems",
        activities=[example().write_poem],
        plugins=[StreamqPlugin(queue, settings)],
    ):
        out = await run(documented(), temporal_address)
        result: dict[str, Any] = await client.get_workflow_handle("poem-7").result()
    assert "poem-7" in out
    assert '"carries_values":true' in re.sub(r"\s", "", out)
    assert result["result"] == "Ode to a lighthouse"
    assert result["digest"] in out


def test_the_documented_input_is_described_by_the_schema() -> None:
    """The page, the schema and the workflow speak of the same fields."""
    found = re.search(r"--input '(.*?)'", documented())
    assert found is not None
    schema = json.loads((DOCS / "streamq-stream.schema.json").read_text())
    request = schema["$defs"]["StreamRequest"]
    given = json.loads(found[1])
    assert set(given) <= set(request["properties"])
    assert set(request["required"]) <= set(given)
