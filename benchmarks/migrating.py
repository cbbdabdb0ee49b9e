"""Measures the old and the new programs of the migration guide, side by side.

    python -m benchmarks.migrating               # starts its own Temporal and Valkey; four minutes

Each program asks for an answer of 200 words, of which one comes every 20 ms. ``first``, ``p50`` and
``p99`` are the time from the model to the reader, in ms; actions are what Temporal bills for the
workflow, as its history shows; lines are those of the program without its docstrings and blank
lines. ``docs/migrating.md`` has the programs and the table.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import importlib
import os
import statistics
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, SupportsIndex

import uvicorn
from rich.console import Console
from rich.table import Table
from temporalio.client import Client
from temporalio.worker import Worker

from benchmarks._bill import read_bill
from benchmarks._stats import percentile
from streamq.devserver import TemporalDevServer, free_port
from streamq.gateway import create_app, serve
from streamq.temporal import StreamqPlugin
from streamq_redis.embedded import EmbeddedRedis

PROGRAMS = Path(__file__).parents[1] / "docs/examples/migrating"
KINDS = ("batch", "redis_list", "pubsub", "workflow_streams", "resumable")
WORDS = 200
PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Result:
    """One run of a program; times in ms."""

    first: float
    p50: float
    p99: float
    actions: float


class Screen(list[str]):
    """Notes when each word was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def append(self, text: str) -> None:
        """Show a text, of one word or of all."""
        super().append(text)
        self.times += [time.perf_counter()] * max(len(text.split()), 1)

    def extend(self, texts: Iterable[str]) -> None:
        """Show several."""
        for text in texts:
            self.append(text)

    def remove(self, text: str) -> None:
        """Take back the mark of the end."""
        self.times.pop(self.index(text))
        super().remove(text)

    def pop(self, index: SupportsIndex = -1) -> str:
        """Take back one text."""
        self.times.pop(index)
        return super().pop(index)


async def run(client: Client, name: str) -> Result:
    """Ask a program once."""
    program = importlib.import_module(name)
    spoken: list[float] = []

    async def words(_prompt: str) -> AsyncIterator[str]:
        for number in range(WORDS):
            await asyncio.sleep(PAUSE_SECONDS)
            spoken.append(time.perf_counter())
            yield f"word-{number} "

    program.words = words  # type: ignore[attr-defined]
    screen, chat = Screen(), f"chat-{uuid.uuid4()}"
    async with Worker(
        client,
        task_queue=_task_queue(name),
        workflows=[program.Chat],
        activities=[getattr(program, each) for each in ("answer", "pop") if hasattr(program, each)],
        plugins=[StreamqPlugin()] if name.endswith("_after") else [],
    ):
        text = await program.ask(client, chat, "a lighthouse", screen)
        await client.get_workflow_handle(chat).result()
    if text != "".join(f"word-{number} " for number in range(WORDS)):
        raise RuntimeError(f"{name} showed something else: {text[:80]!r}")
    ages = [(shown - said) * 1000 for said, shown in zip(spoken, screen.times, strict=True)]
    bill = await read_bill(client, [chat])
    return Result(ages[0], percentile(ages, 0.5), percentile(ages, 0.99), bill.actions)


def _tree(name: str) -> ast.Module:
    return ast.parse((PROGRAMS / f"{name}.py").read_text())


def _task_queue(name: str) -> str:
    """Return the task queue that a program names."""
    return next(
        node.value.value
        for node in ast.walk(_tree(name))
        if isinstance(node, ast.keyword)
        and node.arg == "task_queue"
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def lines_of(name: str) -> int:
    """Return how many lines a program has, without docstrings, comments and blank lines."""
    return len(ast.unparse(_without_docstrings(_tree(name))).split("\n"))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return tree


async def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="runs of each program, in turn")
    parser.add_argument("--markdown", action="store_true", help="print the table for the guide")
    options = parser.parse_args()
    sys.path.insert(0, str(PROGRAMS))
    results: dict[str, list[Result]] = {}
    async with AsyncExitStack() as stack:
        temporal = stack.enter_context(TemporalDevServer())
        redis = stack.enter_context(EmbeddedRedis())
        os.environ |= {
            "STREAMQ_BACKEND": "redis",
            "STREAMQ_REDIS_URL": redis.url,
            "STREAMQ_GATEWAY_ANONYMOUS": "read,list",
            "REDIS_URL": redis.url,
        }
        client = await Client.connect(temporal.address)
        for _ in range(options.rounds):
            for name in (f"{kind}_{side}" for kind in KINDS for side in ("before", "after")):
                os.environ["RELAY_PORT"] = str(free_port())
                async with AsyncExitStack() as relay:
                    if name == "resumable_before":
                        await relay.enter_async_context(_Relay(importlib.import_module(name)))
                    elif name == "resumable_after":
                        port = int(os.environ["RELAY_PORT"])
                        await relay.enter_async_context(serve(create_app(), port=port))
                    results.setdefault(name, []).append(await run(client, name))
    _print(results, as_markdown=options.markdown)


class _Relay:
    """The old relay."""

    def __init__(self, program: ModuleType) -> None:
        config = uvicorn.Config(program.app, port=int(os.environ["RELAY_PORT"]), log_level="error")
        self._server = uvicorn.Server(config)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._server.serve())
        while not self._server.started:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)

    async def __aexit__(self, *_: Any) -> None:
        assert self._task is not None
        self._server.should_exit = True
        await self._task


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _print(results: dict[str, list[Result]], *, as_markdown: bool) -> None:
    heads = ("program", "first word, ms", "p50, ms", "p99, ms", "actions per 1,000 words", "lines")
    rows = []
    for name, runs in results.items():
        middle = [
            statistics.median(getattr(each, field) for each in runs)
            for field in ("first", "p50", "p99")
        ]
        actions = statistics.median(each.actions for each in runs) * 1000 / WORDS
        rows.append((name, *map(_number, middle), f"{actions:,.0f}", str(lines_of(name))))
    if as_markdown:
        print("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
        for row in rows:
            print("| " + " | ".join(row) + " |")
        return
    table = Table(*heads, title="The programs of the migration guide", title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


if __name__ == "__main__":
    asyncio.run(main())
