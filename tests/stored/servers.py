"""Starts the real server of a backend, and takes out of it or puts into it what streamq stored."""

from __future__ import annotations

import base64
import contextlib
import json
import lzma
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import redis.asyncio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition
from temporalio.client import Client

from streamq.devserver import FAST, TemporalDevServer
from streamq.driver import StreamId
from streamq_aws.embedded import Ministack
from streamq_kafka.embedded import EmbeddedKafka, TopicSpec
from streamq_postgres._schema import creation
from streamq_postgres.embedded import EmbeddedPostgres
from streamq_redis.embedded import EmbeddedRedis
from streamq_workflow_streams import WorkflowStreamsSettings
from streamq_workflow_streams.embedded import EmbeddedHosts

DATA = Path(__file__).with_name("data")
Kept = Any
"""What the server of a backend keeps, as JSON."""


class Server:
    """The real server of one backend, running while entered.

    Args:
        directory: An empty directory for its files.
        kept: What to begin with; nothing by default.
    """

    backend: str
    can_trim = True

    def __init__(self, directory: Path, kept: Kept | None = None) -> None:
        self.directory = directory
        self.kept = kept

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Mapping[str, str]]:
        """Run it, and yield the environment variables that lead streamq there."""
        raise NotImplementedError
        yield {}

    async def save(self) -> Kept:
        """Return what it keeps. After :meth:`running`, or in it where only that is possible."""
        raise NotImplementedError

    async def trim(self, stream: StreamId, keep: int) -> None:
        """Remove all but the newest records of a stream, as an operator would."""
        raise NotImplementedError


def text(data: bytes) -> str:
    """Return bytes as JSON has them."""
    return base64.b64encode(data).decode()


def raw(data: str) -> bytes:
    """Return the bytes that :func:`text` was called with."""
    return base64.b64decode(data)


class SqliteFile(Server):
    """The file of the SQLite driver."""

    backend = "sqlite"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Mapping[str, str]]:
        path = self.directory / "streams.db"
        if self.kept is not None:
            path.write_bytes(raw(self.kept))
        yield {"STREAMQ_SQLITE_PATH": str(path)}

    async def save(self) -> Kept:
        small = self.directory / "small.db"
        with contextlib.closing(sqlite3.connect(self.directory / "streams.db")) as database:
            database.execute("VACUUM INTO ?", [str(small)])
        return text(small.read_bytes())

    async def trim(self, stream: StreamId, keep: int) -> None:
        with contextlib.closing(sqlite3.connect(self.directory / "streams.db")) as database:
            found = "SELECT id FROM streams WHERE tenant = ? AND name = ?"
            (number,) = database.execute(found, [stream.tenant, stream.name]).fetchone()
            newest = "SELECT id FROM records WHERE stream = ? ORDER BY id DESC LIMIT ?"
            database.execute(
                f"DELETE FROM records WHERE stream = ? AND id NOT IN ({newest})",
                [number, number, keep],
            )
            database.commit()


class Redis(Server):
    """A Valkey server; what it keeps is the commands that store it."""

    backend = "redis"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Mapping[str, str]]:
        with EmbeddedRedis(appendonly=True) as server:
            client: Any = redis.asyncio.Redis.from_url(server.url)
            async with client as self.client:
                for key, last_id, entries in self.kept or ():
                    for entry_id, fields in entries:
                        pairs = {raw(name): raw(value) for name, value in fields}
                        await self.client.xadd(raw(key), pairs, id=entry_id)
                    await self.client.execute_command("XSETID", raw(key), last_id)
                    await self.client.expire(raw(key), 86_400)
                yield {"STREAMQ_REDIS_URL": server.url}

    async def save(self) -> Kept:
        kept = []
        for key in sorted([key async for key in self.client.scan_iter()]):
            assert await self.client.type(key) == b"stream"
            last_id = (await self.client.xinfo_stream(key))["last-generated-id"]
            entries = [
                [entry_id.decode(), [[text(name), text(value)] for name, value in fields.items()]]
                for entry_id, fields in await self.client.xrange(key)
            ]
            kept.append([text(key), last_id.decode(), entries])
        return kept

    async def trim(self, stream: StreamId, keep: int) -> None:
        key = f"streamq:{{{stream}}}"
        await self.client.xtrim(key, maxlen=keep, approximate=False)


class Postgres(Server):
    """A PostgreSQL server; what it keeps is its tables: how they were created, and their rows."""

    backend = "postgres"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Mapping[str, str]]:
        with EmbeddedPostgres() as server:
            self.url = server.url
            if self.kept is not None:
                await self._restore(self.kept)
            yield {"STREAMQ_POSTGRES_URL": server.url}

    async def _restore(self, kept: Kept) -> None:
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as client:
            await client.execute("CREATE SCHEMA streamq")
            await client.execute(kept["creation"])
            async with client.cursor() as cursor:
                await cursor.executemany(
                    "INSERT INTO streamq.streams VALUES "
                    "(%s, %s, %s, %s, %s, %s, %s, now() + interval '1 day')",
                    [[*row[:2], raw(row[2]), *row[3:]] for row in kept["streams"]],
                )
                await cursor.executemany(
                    "INSERT INTO streamq.records VALUES (%s, %s, %s, %s)",
                    [[*row[:3], raw(row[3])] for row in kept["records"]],
                )

    async def save(self) -> Kept:
        async with await psycopg.AsyncConnection.connect(self.url) as client:
            streams = await client.execute(
                "SELECT id, tenant, name, epoch, idx, records, size_bytes FROM streamq.streams "
                "ORDER BY id"
            )
            records = await client.execute("SELECT * FROM streamq.records ORDER BY 1, 2, 3")
            return {
                "creation": creation("streamq").as_string(None),
                "streams": [[*row[:2], text(row[2]), *row[3:]] async for row in streams],
                "records": [[*row[:3], text(row[3])] async for row in records],
            }

    async def trim(self, stream: StreamId, keep: int) -> None:
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as client:
            await client.execute(
                "DELETE FROM streamq.records AS r USING streamq.streams AS s "
                "WHERE s.tenant = %s AND s.name = %s AND r.stream = s.id AND (r.epoch, r.idx) "
                "NOT IN (SELECT o.epoch, o.idx FROM streamq.records AS o WHERE o.stream = s.id "
                "ORDER BY 1 DESC, 2 DESC LIMIT %s)",
                [stream.tenant, stream.name.encode(), keep],
            )


class Kafka(Server):
    """A Tansu broker; what it keeps is the records of each partition, in order."""

    backend = "kafka"
    can_trim = False  # this broker fails at it
    topics = (TopicSpec("streamq", 2), TopicSpec("streamq.directory", 1, compacted=True))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Mapping[str, str]]:
        with EmbeddedKafka(topics=self.topics) as server:
            self.address = server.address
            if self.kept is not None:
                await self._restore(self.kept)
            yield server.environment

    async def _restore(self, kept: Kept) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.address, acks="all")
        await producer.start()
        try:
            for topic, partition, records in kept:
                for key, value, headers, timestamp in records:
                    await producer.send_and_wait(
                        topic,
                        None if value is None else raw(value),
                        key=raw(key),
                        partition=partition,
                        timestamp_ms=timestamp,
                        headers=[(name, raw(data)) for name, data in headers],
                    )
        finally:
            await producer.stop()

    async def save(self) -> Kept:
        kept = []
        consumer = AIOKafkaConsumer(bootstrap_servers=self.address)
        await consumer.start()
        try:
            for topic in self.topics:
                for number in range(topic.partitions):
                    partition = TopicPartition(topic.name, number)
                    consumer.assign([partition])
                    end = (await consumer.end_offsets([partition]))[partition]
                    consumer.seek(partition, 0)
                    records: list[Any] = []
                    while len(records) < end:
                        record = await consumer.getone()
                        assert record.offset == len(records)
                        value = None if record.value is None else text(record.value)
                        headers = [[name, text(data)] for name, data in record.headers]
                        records.append([text(record.key), value, headers, record.timestamp])
                    kept.append([topic.name, number, records])
        finally:
            await consumer.stop()
        return kept


class S3(Server):
    """An emulator of S3 and SNS; what it keeps is its objects."""

    backend = "s3sns"
    bucket = "streamq"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Mapping[str, str]]:
        with Ministack() as server, server.client("s3") as self.client:
            self.client.create_bucket(Bucket=self.bucket)
            for key, metadata, body in self.kept or ():
                self.client.put_object(
                    Bucket=self.bucket, Key=key, Metadata=metadata, Body=raw(body)
                )
            yield {**server.environment, "STREAMQ_S3SNS_BUCKET": self.bucket}

    async def save(self) -> Kept:
        kept = []
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        for key in [each["Key"] for page in pages for each in page.get("Contents", ())]:
            found = self.client.get_object(Bucket=self.bucket, Key=key)
            kept.append([key, found["Metadata"], text(found["Body"].read())])
        return kept

    can_trim = False


class Sqs(Server):
    """An emulator of SQS; what it keeps is its queues with tags and messages."""

    backend = "sqs"
    can_trim = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Mapping[str, str]]:
        with Ministack() as server, server.client("sqs") as self.client:
            for name, attributes, tags, messages in self.kept or ():
                url = self.client.create_queue(QueueName=name, Attributes=attributes, tags=tags)
                for group, repeat, body, attribute in messages:
                    self.client.send_message(
                        QueueUrl=url["QueueUrl"],
                        MessageBody=body,
                        MessageGroupId=group,
                        MessageDeduplicationId=repeat,
                        MessageAttributes={
                            "streamq": {"DataType": "Binary", "BinaryValue": raw(attribute)}
                        },
                    )
            # Emulators keep messages of 256 KiB only.
            yield {**server.environment, "STREAMQ_SQS_MAX_MESSAGE_BYTES": "262144"}

    async def save(self) -> Kept:
        kept = []
        for url in sorted(self.client.list_queues().get("QueueUrls", ())):
            attributes = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
            settable = {
                name: value
                for name, value in attributes["Attributes"].items()
                if name in ("FifoQueue", "VisibilityTimeout", "MessageRetentionPeriod")
                or name in ("ContentBasedDeduplication", "MaximumMessageSize")
            }
            tags = self.client.list_queue_tags(QueueUrl=url).get("Tags", {})
            kept.append([url.rpartition("/")[2], settable, tags, list(self._messages(url))])
        return kept

    def _messages(self, url: str) -> Iterator[list[str]]:
        """Take all messages out of a queue, in order."""
        while found := self.client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            MessageAttributeNames=["All"],
            AttributeNames=["All"],
        ).get("Messages"):
            for message in found:
                facts = message["Attributes"]
                yield [
                    facts["MessageGroupId"],
                    facts["MessageDeduplicationId"],
                    message["Body"],
                    text(message["MessageAttributes"]["streamq"]["BinaryValue"]),
                ]
                self.client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


class Temporal(Server):
    """A Temporal server and a worker for hosts; what it keeps is the server's database."""

    backend = "workflow_streams"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Mapping[str, str]]:
        path = self.directory / "temporal.db"
        if self.kept is not None:
            path.write_bytes(raw(self.kept))
        config = {**FAST, "limit.historyCount.suggestContinueAsNew": "200"}
        with (
            TemporalDevServer(database=path, dynamic_config=config) as server,
            EmbeddedHosts(server.address, WorkflowStreamsSettings()),
        ):
            self.client = await Client.connect(server.address)
            yield {
                "STREAMQ_WORKFLOW_STREAMS_ADDRESS": server.address,
                "STREAMQ_WORKFLOW_STREAMS_NAMESPACE": "default",
            }

    async def save(self) -> Kept:
        small = self.directory / "small.db"
        with contextlib.closing(sqlite3.connect(self.directory / "temporal.db")) as database:
            database.execute("VACUUM INTO ?", [str(small)])
        return text(small.read_bytes())

    async def trim(self, stream: StreamId, keep: int) -> None:
        host = self.client.get_workflow_handle(f"streamq-host/{stream}")
        await host.execute_update("streamq_trim", keep)


SERVERS: tuple[type[Server], ...] = (SqliteFile, Redis, Postgres, Kafka, S3, Sqs, Temporal)
IS_SAVED_AFTERWARDS = (SqliteFile, Temporal)
"""Servers whose files are complete only once nothing uses them."""


def load(backend: str) -> tuple[list[dict[str, Any]], Kept]:
    """Return the outline of the kept streams of a backend, and what the server kept."""
    found = json.loads(lzma.decompress((DATA / f"{backend}.json.xz").read_bytes()))
    return found["expected"], found["kept"]


def store(backend: str, expected: Any, kept: Kept, origin: str) -> int:
    """Write the file of a backend; return its size."""
    content = {"origin": origin, "saved": int(time.time()), "expected": expected, "kept": kept}
    data = lzma.compress(json.dumps(content).encode(), preset=9 | lzma.PRESET_EXTREME)
    (DATA / f"{backend}.json.xz").write_bytes(data)
    return len(data)
