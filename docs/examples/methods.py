"""Methods of a class stream too: the activities share the object that the worker has."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

from temporalio import workflow
from temporalio.worker import Worker

from streamq import Chunk, StreamWriter
from streamq.temporal import StreamqPlugin, connect, streaming_activity, subscribe


class Model:
    """Stands for a client that costs something to make: a connection, a pool, a key."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def complete(self, prompt: str) -> AsyncIterator[str]:
        """Answer word by word."""
        for word in f"You asked about {prompt}. Nobody knows.".split():
            await asyncio.sleep(0.05)
            yield word + " "


class Assistant:
    """Activities with a dependency."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @streaming_activity
    async def answer(self, prompt: str, stream: StreamWriter[str]) -> str:
        """Pass the model's words on; return its name. The writer comes last in a method."""
        async for word in self._model.complete(prompt):
            await stream.send_chunk(word)
        return self._model.name


@workflow.defn
class Question:
    """Names the method by the class, as it has no instance."""

    @workflow.run
    async def run(self, prompt: str) -> str:
        """Return the name of the model that answered."""
        return await workflow.execute_activity_method(
            Assistant.answer,
            prompt,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
        )


async def main() -> None:
    """Run the worker, start the workflow and watch it."""
    client = await connect(plugins=[StreamqPlugin()])
    assistant = Assistant(Model("oracle-1"))
    async with Worker(
        client, task_queue="questions", workflows=[Question], activities=[assistant.answer]
    ):
        handle = await client.start_workflow(
            Question.run, "the sea", id=f"question-{uuid.uuid4()}", task_queue="questions"
        )
        async with subscribe(handle) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    print(event.value, end="", flush=True)
        print("\nanswered by", await handle.result())


if __name__ == "__main__":
    asyncio.run(main())
