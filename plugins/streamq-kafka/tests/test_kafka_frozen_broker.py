"""A frozen broker: the kernel accepts what is sent to it, and no answer ever comes."""

from __future__ import annotations

import asyncio

from aiokafka.structs import BrokerMetadata, TopicPartition

from kafka_brokers import Broker
from streamq_kafka.requests._cluster import Cluster

_SOON = 10.0
_FROZEN = 99


async def test_connecting_to_a_frozen_broker_delays_no_other(apache: Broker) -> None:
    """One broker of many hangs; streams on the others continue, also over new connections."""
    connected = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    partition = TopicPartition("streamq", 0)
    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    cluster = Cluster(apache.settings(operation_timeout_seconds=60.0))
    await cluster.start()
    try:
        await cluster.metadata.partitions("streamq")
        end = (await cluster.end_offsets([partition]))[partition]
        assert isinstance(end, int)
        frozen = BrokerMetadata(_FROZEN, "127.0.0.1", port, None)
        cluster.connections.client.cluster._brokers[_FROZEN] = frozen
        stuck = asyncio.ensure_future(
            cluster.fetch(_FROZEN, [(partition, end)], partition_bytes=1, max_bytes=1)
        )
        async with asyncio.timeout(_SOON):
            await connected.wait()
            cluster.connections.hang_up(await cluster.metadata.leader(partition), 0)
            assert (await cluster.fetch_now(partition, end, max_bytes=1)).error is None
        assert not stuck.done()
        stuck.cancel()
        await asyncio.wait([stuck])
    finally:
        await cluster.close()
        server.close()
        await server.wait_closed()
