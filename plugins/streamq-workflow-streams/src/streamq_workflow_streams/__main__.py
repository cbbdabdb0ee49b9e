"""``python -m streamq_workflow_streams``: a worker for the host workflow, until it is stopped."""

from __future__ import annotations

import asyncio
import logging
import signal

from ._settings import WorkflowStreamsSettings, make_client
from ._worker import host_worker


async def _run() -> None:
    settings = WorkflowStreamsSettings()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with host_worker(await make_client(settings, for_worker=True), settings):
        logging.getLogger("streamq").info(
            "hosting streams on task queue %s of %s", settings.task_queue, settings.address
        )
        await stopped.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(_run())
