"""A workflow reads its activity's stream with `async for`, and acts on its events."""

import asyncio
import uuid
from datetime import timedelta

from temporalio import workflow
from temporalio.worker import Worker

from streamq import Chunk, Reset, Seal, StreamWriter
from streamq.temporal import StreamqPlugin, connect, stream_activity, streaming_activity


@streaming_activity
async def inspect(stream: StreamWriter[str], ship: str) -> str:
    """Send each finding; return the verdict."""
    for part in ("hull", "engine", "radio"):
        await asyncio.sleep(0.1)
        await stream.send_chunk(f"{part} of the {ship} inspected")
    return "seaworthy"


@workflow.defn
class Inspection:
    """Sees every chunk while the activity runs, and answers a query for them."""

    def __init__(self) -> None:
        self._findings: list[str] = []

    @workflow.query
    def findings(self) -> list[str]:
        """Return the findings so far."""
        return self._findings

    @workflow.run
    async def run(self, ship: str) -> list[str]:
        """Return the findings, how the stream ended, and the verdict."""
        async with stream_activity(
            inspect,
            ship,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
        ) as stream:
            async for event in stream:
                match event:
                    case Chunk():
                        self._findings.append(event.value)
                    case Reset():  # the activity failed, and its next attempt starts over
                        self._findings.clear()
                    case Seal():
                        self._findings.append(event.state.name)
            return [*self._findings, await stream.result()]


async def main() -> None:
    """Run the worker and the workflow; here only the workflow reads the stream."""
    client = await connect(plugins=[StreamqPlugin()])
    async with Worker(client, task_queue="ships", workflows=[Inspection], activities=[inspect]):
        found = await client.execute_workflow(
            Inspection.run, "Argo", id=f"inspection-{uuid.uuid4()}", task_queue="ships"
        )
    print("\n".join(found))


if __name__ == "__main__":
    asyncio.run(main())
