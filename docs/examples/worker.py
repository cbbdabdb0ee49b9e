"""A worker that keeps running: any SDK may start `streamq.Stream` on its task queue."""

import asyncio
import signal

from temporalio.worker import Worker

from streamq import StreamWriter
from streamq.temporal import StreamqPlugin, connect, streaming_activity


@streaming_activity
async def write_poem(stream: StreamWriter, subject: str) -> str:
    """Send a poem word by word; return its title at the end."""
    for word in f"The {subject} says nothing, and the sea repeats it.".split():
        await stream.send_chunk(word + " ")
        await asyncio.sleep(0.1)
    return f"Ode to a {subject}"


async def main() -> None:
    """Run until Ctrl-C or SIGTERM. The plugin brings the generic workflows."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    client = await connect(plugins=[StreamqPlugin()])
    async with Worker(client, task_queue="poems", activities=[write_poem]):
        print("the worker of task queue poems runs; Ctrl-C stops it", flush=True)
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main())
