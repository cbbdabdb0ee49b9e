"""Runs a worker for the host workflow until it is stopped: the command of this package."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

from pydantic import ValidationError

from streamq.driver import ConfigurationError, StreamqError, leaving_sdk
from streamq_workflow_streams._settings import WorkflowStreamsSettings

from ._running import run_hosts

_OVERRIDES = ("address", "namespace", "task_queue")


def _settings(arguments: Sequence[str]) -> WorkflowStreamsSettings:
    parser = argparse.ArgumentParser(
        prog="python -m streamq_workflow_streams",
        description="Run a worker for the backend workflow_streams: it keeps the streams, each in "
        "a workflow of type streamq.Host. Without a worker they can be neither written nor read. "
        "Run as many as you like; Ctrl-C or SIGTERM stops this one, and the streams continue with "
        "the next one.",
        epilog="Everything is configured by STREAMQ_WORKFLOW_STREAMS_... variables, .env and "
        "streamq.toml: `STREAMQ_BACKEND=workflow_streams streamq config` shows them.",
    )
    fields = WorkflowStreamsSettings.model_fields
    for name in _OVERRIDES:
        variable = f"STREAMQ_WORKFLOW_STREAMS_{name.upper()}"
        text = f"{fields[name].description} (default: {variable}, else {fields[name].default})"
        parser.add_argument(f"--{name.replace('_', '-')}", help=text)
    given = {key: value for key, value in vars(parser.parse_args(arguments)).items() if value}
    try:
        return WorkflowStreamsSettings(**given)
    except ValidationError as exc:
        # Without the values, because one of them may be secret.
        wrong = "; ".join(f"{error['loc'][0]}: {error['msg']}" for error in exc.errors())
        raise ConfigurationError(f"invalid setting of workflow_streams: {wrong}") from None


async def _run(settings: WorkflowStreamsSettings) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with leaving_sdk():
        await run_hosts(settings, stopped)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the worker until it is stopped; return the exit code."""
    try:
        settings = _settings(sys.argv[1:] if arguments is None else arguments)
        logging.basicConfig(level=logging.INFO)
        asyncio.run(_run(settings))
    except StreamqError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 2
    return 0
