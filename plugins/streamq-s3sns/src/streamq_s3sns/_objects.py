"""The requests to S3 that are about objects beside a stream; nothing remembered or retried."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from streamq_aws import error_code

from ._bucket import Bucket
from ._keys import OBJECT, object_begin
from ._reference import OCTETS
from ._segment import decode_name, encode_name

FILE_METADATA = "streamq-file"

_BLOCK_BYTES = 256 * 2**10
_CHECKSUM = "CRC32"  # what the client computes for each body, unless it is told not to
_DELETED_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Found:
    """An object that is there, as its headers describe it."""

    bytes: int
    media_type: str
    name: str


class Objects:
    """The objects that lie in the directories of streams, beside the segments.

    Every method raises streamq's errors only.

    Args:
        bucket: Where they are.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        # S3 refuses parts with a checksum that was not announced at the beginning.
        wants_checksums = bucket.client.meta.config.request_checksum_calculation != "when_required"
        self._checksum: dict[str, Any] = {"ChecksumAlgorithm": _CHECKSUM} if wants_checksums else {}

    async def put(self, key: str, body: bytes, media_type: str, name: str) -> None:
        """Store an object in one request."""
        await self.bucket.call("put_object", Key=key, Body=body, **_described(media_type, name))

    async def begin(self, key: str, media_type: str, name: str) -> str:
        """Begin an object of several parts; return the id of that upload."""
        described = _described(media_type, name)
        answer = await self.bucket.call(
            "create_multipart_upload", Key=key, **self._checksum, **described
        )
        return str(answer["UploadId"])

    async def put_part(self, key: str, upload: str, number: int, body: bytes) -> dict[str, Any]:
        """Store a part; return what :meth:`complete` has to say of it."""
        answer = await self.bucket.call(
            "upload_part",
            Key=key,
            UploadId=upload,
            PartNumber=number,
            Body=body,
            **self._checksum,
        )
        kept = {name: answer[name] for name in ("ETag", f"Checksum{_CHECKSUM}") if name in answer}
        return {"PartNumber": number, **kept}

    async def complete(self, key: str, upload: str, parts: Sequence[Mapping[str, Any]]) -> None:
        """Make an object of its parts; no error if that is what has been done before."""
        try:
            await self.bucket.call(
                "complete_multipart_upload",
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": list(parts)},
            )
        except Exception as exc:
            # A repeat whose first answer was lost finds no upload, and the object.
            if error_code(exc.__cause__ or exc) != "NoSuchUpload" or not await self.find(key):
                raise

    async def abort(self, key: str, upload: str) -> None:
        """Remove the parts of what will not be completed; no error if there are none."""
        await self.bucket.call(
            "abort_multipart_upload", missing_is_none=True, Key=key, UploadId=upload
        )

    async def find(self, key: str) -> Found | None:
        """Return what an object is; ``None`` if it is not there."""
        answer = await self.bucket.call("head_object", missing_is_none=True, Key=key)
        if answer is None:
            return None
        name = ""
        with contextlib.suppress(ValueError):  # somebody else wrote it: then it has no name
            name = decode_name(answer["Metadata"].get(FILE_METADATA, ""))
        return Found(answer["ContentLength"], answer.get("ContentType", OCTETS), name)

    async def read(self, key: str, first: int) -> AsyncGenerator[bytes, None]:
        """Iterate over the bytes of an object from one on; over none if it is not there."""
        rest: dict[str, Any] = {"Range": f"bytes={first}-"} if first else {}
        answer = await self.bucket.call("get_object", missing_is_none=True, Key=key, **rest)
        if answer is None:
            return
        body = answer["Body"]
        try:
            while True:
                block = await self.bucket.read(body, key, _BLOCK_BYTES)
                if not block:
                    return
                yield block
        finally:
            body.close()

    async def of(self, directory: str, *, upto: int | None = None) -> list[str]:
        """Return the keys of a stream's objects.

        Args:
            directory: Which stream.
            upto: Only of streams of this name that began no later than with this segment.
        """
        found: list[str] = []
        prefix = f"{directory}{OBJECT}"
        after = ""
        while True:
            answer = await self.bucket.list(prefix, after)
            keys = [each["Key"] for each in answer.get("Contents") or ()]
            for key in keys:
                begin = object_begin(key.removeprefix(prefix))
                if begin is not None and (upto is None or begin <= upto):
                    found.append(key)
            if not answer.get("IsTruncated") or not keys:
                return found
            after = keys[-1]

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete what has these keys, in their order; no error if some are not there."""
        for first in range(0, len(keys), _DELETED_AT_ONCE):
            some = keys[first : first + _DELETED_AT_ONCE]
            answer = await self.bucket.call(
                "delete_objects", Delete={"Objects": [{"Key": key} for key in some], "Quiet": True}
            )
            for failed in answer.get("Errors") or ():
                with self.bucket.errors(failed.get("Key", "")):
                    raise ClientError({"Error": failed}, "DeleteObjects")

    async def sign(self, key: str, *, seconds: int, media_type: str, disposition: str) -> str:
        """Return a URL by which anybody can fetch an object for so long. No request is made."""
        with self.bucket.errors(key):
            return str(
                await self.bucket.client.generate_presigned_url(
                    "get_object",
                    Params={
                        "Bucket": self.bucket.name,
                        "Key": key,
                        "ResponseContentType": media_type,
                        "ResponseContentDisposition": disposition,
                    },
                    ExpiresIn=seconds,
                )
            )


def _described(media_type: str, name: str) -> dict[str, Any]:
    metadata = {FILE_METADATA: encode_name(name)} if name else {}
    return {"ContentType": media_type, "Metadata": metadata}
