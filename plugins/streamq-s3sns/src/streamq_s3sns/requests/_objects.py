"""Makes the requests about the large objects next to a stream.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from streamq.driver import BackendError
from streamq_aws import error_code
from streamq_s3sns._errors import is_unsupported
from streamq_s3sns._naming import OBJECT, object_begin
from streamq_s3sns._segment import decode_name, encode_name

from ._bucket import Bucket

OCTETS = "application/octet-stream"
FILE_METADATA = "streamq-file"

_BLOCK_BYTES = 256 * 2**10
_CHECKSUM = "CRC32"  # which the client computes for each body, unless it is configured not to
_DELETED_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class ObjectHeaders:
    """Size, type and file name of an object."""

    bytes: int
    media_type: str
    name: str


class ObjectStore:
    """The objects in the directories of streams, next to the segments.

    Every method raises streamq's errors only.

    Args:
        bucket: The bucket with the objects.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self._deletes_many = True
        # S3 refuses parts with a checksum that was not announced at the beginning.
        wants_checksums = bucket.client.meta.config.request_checksum_calculation != "when_required"
        self._checksum: dict[str, Any] = {"ChecksumAlgorithm": _CHECKSUM} if wants_checksums else {}

    async def put(self, key: str, body: bytes, media_type: str, name: str) -> None:
        """Store an object in one request."""
        await self.bucket.call("put_object", Key=key, Body=body, **_described(media_type, name))

    async def begin(self, key: str, media_type: str, name: str) -> str:
        """Begin an object of several parts; return the id of the upload."""
        described = _described(media_type, name)
        answer = await self.bucket.call(
            "create_multipart_upload", Key=key, **self._checksum, **described
        )
        return str(answer["UploadId"])

    async def put_part(self, key: str, upload: str, number: int, body: bytes) -> dict[str, Any]:
        """Store a part; return its description for :meth:`complete`."""
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
        """Make an object of its parts; no error if this was done before."""
        try:
            await self.bucket.call(
                "complete_multipart_upload",
                Key=key,
                UploadId=upload,
                MultipartUpload={"Parts": list(parts)},
            )
        except Exception as exc:
            # After a lost answer the upload is gone, and the object exists.
            if error_code(exc.__cause__ or exc) != "NoSuchUpload" or not await self.find(key):
                raise

    async def abort(self, key: str, upload: str) -> None:
        """Remove the parts of an upload that will not be completed; no error if there are none."""
        await self.bucket.call(
            "abort_multipart_upload", missing_is_none=True, Key=key, UploadId=upload
        )

    async def find(self, key: str) -> ObjectHeaders | None:
        """Return the headers of an object; ``None`` if it does not exist."""
        answer = await self.bucket.call("head_object", missing_is_none=True, Key=key)
        if answer is None:
            return None
        name = ""
        with contextlib.suppress(ValueError):  # not written by streamq: then it has no name
            name = decode_name(answer["Metadata"].get(FILE_METADATA, ""))
        return ObjectHeaders(answer["ContentLength"], answer.get("ContentType", OCTETS), name)

    async def read(self, key: str, first: int) -> AsyncGenerator[bytes, None]:
        """Iterate over an object from byte ``first`` on; empty if it does not exist."""
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

    async def keys(self, directory: str, *, upto: int | None = None) -> list[str]:
        """Return the keys of a stream's objects.

        Args:
            directory: Directory of the stream.
            upto: Only objects of streams of this name that began no later than with this segment.
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
        """Delete segments or objects by their keys, in order; no error if some do not exist.

        A server that does not support deleting many at once is asked to delete one by one.
        """
        for first in range(0, len(keys), _DELETED_AT_ONCE):
            some = keys[first : first + _DELETED_AT_ONCE]
            if self._deletes_many:
                try:
                    await self._delete_many(some)
                    continue
                except BackendError as exc:
                    if not is_unsupported(exc):
                        raise
                    self._deletes_many = False
            for key in some:
                await self.bucket.call("delete_object", missing_is_none=True, Key=key)

    async def _delete_many(self, keys: Sequence[str]) -> None:
        answer = await self.bucket.call(
            "delete_objects", Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
        )
        for failed in answer.get("Errors") or ():
            with self.bucket.errors(failed.get("Key", "")):
                raise ClientError({"Error": failed}, "DeleteObjects")

    async def sign(self, key: str, *, seconds: int, media_type: str, disposition: str) -> str:
        """Return a URL that opens an object for so many seconds. Makes no request."""
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
