"""A blocking function streams from a thread: the same calls as in async code, without `await`."""

import asyncio
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio import workflow
from temporalio.worker import Worker

from streamq import BlockingStreamWriter, Chunk
from streamq.temporal import StreamqPlugin, connect, streaming_activity, subscribe


@streaming_activity
def transcribe(stream: BlockingStreamWriter[str], recording: str) -> int:
    """Send each sentence as a library without asyncio finds it; return their number."""
    sentences = ["Good morning.", "The harbour is closed.", "Go back."]
    for number, sentence in enumerate(sentences, 1):
        time.sleep(0.1)  # stands for the library, which blocks this thread and nothing else
        stream.send_chunk(f"{recording} {number}: {sentence}")
    return len(sentences)


@workflow.defn
class Transcription:
    """Runs the activity; whether it is sync or async makes no difference here."""

    @workflow.run
    async def run(self, recording: str) -> int:
        """Return the number of sentences."""
        return await workflow.execute_activity(
            transcribe,
            recording,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
        )


async def main() -> None:
    """Run the worker, start the workflow and watch it."""
    client = await connect(plugins=[StreamqPlugin()])
    with ThreadPoolExecutor(max_workers=8) as threads:
        async with Worker(
            client,
            task_queue="recordings",
            workflows=[Transcription],
            activities=[transcribe],
            activity_executor=threads,  # each activity that is not async takes one of them
        ):
            handle = await client.start_workflow(
                Transcription.run, "tape", id=f"tape-{uuid.uuid4()}", task_queue="recordings"
            )
            async with subscribe(handle) as events:
                async for event in events:
                    if isinstance(event, Chunk):
                        print(event.value)
            print(await handle.result(), "sentences")


if __name__ == "__main__":
    asyncio.run(main())
