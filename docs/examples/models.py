"""Streams pydantic models: the activity sends them, and every reader gets them back."""

import asyncio
import uuid
from datetime import timedelta

from pydantic import BaseModel
from temporalio import workflow
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

from streamq import Chunk, StreamWriter
from streamq.temporal import StreamqPlugin, connect, streaming_activity, subscribe


class Trip(BaseModel):
    """A request for offers."""

    to: str
    nights: int


class Offer(BaseModel):
    """One chunk."""

    hotel: str
    price: float


@streaming_activity
async def search(stream: StreamWriter[Offer], trip: Trip) -> Offer:
    """Send each offer as it comes in; return the cheapest. A type checker knows the type sent."""
    offers = [Offer(hotel="Pier", price=90.5), Offer(hotel="Dune", price=70.0)]
    for offer in offers:
        await asyncio.sleep(0.1)
        await stream.send_chunk(offer.model_copy(update={"price": offer.price * trip.nights}))
    return min(offers, key=lambda offer: offer.price)


@workflow.defn
class Search:
    """Takes a model as argument and returns one."""

    @workflow.run
    async def run(self, trip: Trip) -> Offer:
        """Return the cheapest offer."""
        return await workflow.execute_activity(
            search,
            trip,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
        )


async def main() -> None:
    """Run the worker, start the workflow and watch it."""
    client = await connect(data_converter=pydantic_data_converter, plugins=[StreamqPlugin()])
    async with Worker(client, task_queue="trips", workflows=[Search], activities=[search]):
        handle = await client.start_workflow(
            Search.run,
            Trip(to="Sylt", nights=2),
            id=f"trip-{uuid.uuid4()}",
            task_queue="trips",
        )
        async with subscribe(handle, value_type=Offer) as events:
            async for event in events:
                if isinstance(event, Chunk):
                    offer = event.value  # an Offer, for a type checker as well
                    print(f"{offer.hotel}: {offer.price:.2f}")
        print("cheapest:", (await handle.result()).hotel)


if __name__ == "__main__":
    asyncio.run(main())
