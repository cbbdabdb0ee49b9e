"""Converts what a gateway answers: errors, records, descriptions.

Design: docs/design/reading-over-http.md.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from streamq._capabilities import Capabilities, LatencyClass
from streamq._errors import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    CapabilityError,
    CursorError,
    StreamNotFoundError,
    StreamqError,
    ThrottledError,
)
from streamq._events import StreamId
from streamq.driver import Stored, StreamInfo

BACKEND = "gateway"
MOST_BYTES = 268_435_456
"""Largest answer, and largest frame: a record has at most 64 MiB."""

_SHOWN = 500
_LEAST_RECORD_BYTES = 4_096
_STATUSES: dict[int, type[StreamqError]] = {
    401: AccessDeniedError,
    403: AccessDeniedError,
    409: CursorError,
    429: ThrottledError,
    501: CapabilityError,
    502: BackendUnavailableError,
    503: ThrottledError,
    504: BackendUnavailableError,
}
_CODES: dict[str, type[StreamqError]] = {
    "stream_not_found": StreamNotFoundError,
    "cursor": CursorError,
    "capability": CapabilityError,
    "backend_unavailable": BackendUnavailableError,
    "closed": BackendUnavailableError,
    "access_denied": BackendError,  # the gateway's own credentials
}


def error_of(
    status: int, body: bytes, headers: Mapping[str, str], origin: str, stream: StreamId | None
) -> StreamqError:
    """Return the error for an answer that is no success.

    Args:
        status: Of the answer.
        body: Its beginning.
        headers: Its headers.
        origin: Who answered, for messages.
        stream: What was asked about.
    """
    code, message = _problem(body)
    if code:
        return problem_error(code, message, status, origin, stream)
    kind = _STATUSES.get(status, BackendError)
    what = f"{origin} answers with status {status}"
    if 300 <= status < 400:
        target = urlsplit(headers.get("location", ""))
        to = f" to {target.scheme}://{target.netloc}" if target.netloc else ""
        what = (
            f"{origin} redirects{to}, and no token is sent there; give that address, if it is yours"
        )
        kind = BackendError
    elif status == 401:
        what = f"{origin} asks for a login that is no token of a gateway (401)"
    elif status in (200, 404, 405):
        what += " and is no gateway of streamq, or one of a version without /records"
        kind = BackendError
    return kind(what, backend=BACKEND, stream=None if stream is None else str(stream))


def problem_error(
    code: str,
    message: str,
    status: int | None,
    origin: str,
    stream: StreamId | None,
    *,
    retryable: bool = False,
) -> StreamqError:
    """Return the error for a problem that a gateway names.

    Args:
        code: The gateway's name for it.
        message: What the gateway says.
        status: Of the answer; ``None`` if it is an event.
        origin: The gateway.
        stream: What was asked about.
        retryable: Whether an event says so.
    """
    kind = _CODES.get(code) or _STATUSES.get(status or 0)
    if kind is None:
        kind = BackendUnavailableError if retryable else BackendError
    text = f"{origin}: {message}"
    if code == "token_required":
        text += " (the argument token, --token-file, STREAMQ_GATEWAY_TOKEN)"
    elif code == "not_found":
        text = (
            f"{origin} has no such route: it is no gateway of streamq, or an older version of it; "
            "the address of a stream is that of the gateway, then /events/NAME"
        )
    elif code == "host_not_allowed":
        text += " (STREAMQ_GATEWAY_HOSTS of the gateway)"
    return kind(text, backend=BACKEND, stream=None if stream is None else str(stream))


def malformed(origin: str, what: str, stream: StreamId | None = None) -> BackendError:
    """Return the error for an answer that no gateway gives."""
    return BackendError(
        f"{origin} answered with {what}: it is no gateway of streamq, or something on the way has "
        "changed the answer",
        backend=BACKEND,
        stream=None if stream is None else str(stream),
    )


def records_of(pairs: object, origin: str, stream: StreamId) -> list[Stored]:
    """Return the records in an answer.

    Raises:
        BackendError: They are none.
    """
    try:
        return [
            Stored(position, base64.b64decode(data, validate=True))
            for position, data in pairs  # type: ignore[attr-defined]
        ]
    except (TypeError, ValueError, binascii.Error):
        raise malformed(origin, "records that cannot be decoded", stream) from None


def info_of(answer: Mapping[str, Any], origin: str, stream: StreamId) -> StreamInfo:
    """Return the description of a stream in an answer.

    Raises:
        BackendError: It is none.
    """
    try:
        left = answer.get("expires_in_seconds")
        return StreamInfo(
            stream,
            last=tuple(records_of(answer.get("last", []), origin, stream)),
            records=answer.get("records_stored", answer.get("records")),
            size_bytes=answer.get("size_bytes"),
            expires_in=None if left is None else timedelta(seconds=left),
            attempts=answer.get("attempts"),
        )
    except (TypeError, ValueError, OverflowError):
        raise malformed(origin, "a description that cannot be used", stream) from None


def capabilities_of(answer: Mapping[str, Any], origin: str) -> Capabilities:
    """Return capabilities in an answer; what a gateway of another version does not say is absent.

    Raises:
        BackendError: They are none.
    """
    found = answer.get("capabilities")
    if not isinstance(found, dict):
        raise malformed(origin, "no capabilities")
    flags = {name: found.get(name) is True for name in Capabilities.flags()}
    size = found.get("max_record_bytes")
    latency = [each for each in LatencyClass if each.value == found.get("latency")]
    assert len(flags) + 2 == len(fields(Capabilities))
    return Capabilities(
        **flags,
        max_record_bytes=size if isinstance(size, int) and size > 0 else _LEAST_RECORD_BYTES,
        latency=latency[0] if latency else LatencyClass.SECONDS,
    )


def json_object(body: bytes, origin: str, stream: StreamId | None = None) -> dict[str, Any]:
    """Return an answer that is a JSON object.

    Raises:
        BackendError: It is none.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise malformed(origin, "something that is no JSON object", stream)
    return found


def _problem(body: bytes) -> tuple[str, str]:
    """Return code and message of a gateway's answer; empty if it is not from a gateway."""
    try:
        found = json.loads(body)
        code, message = found["error"], found["message"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "", ""
    is_text = isinstance(code, str) and isinstance(message, str)
    return (code, message[:_SHOWN]) if is_text else ("", "")


class FrameParser:
    """Finds the frames in the bytes of an event stream."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.size_bytes = 0
        """Bytes of the frame that has not ended yet."""

    def feed(self, piece: bytes) -> Iterator[tuple[str, bytes]]:
        """Yield the name and the data of each frame that ends in a piece."""
        # The end of a frame may be divided: look at the last byte before the piece, too.
        joint = self._parts[-1][-1:] + piece if self._parts else piece
        if b"\n\n" not in joint:
            self._parts.append(piece)
            self.size_bytes += len(piece)
            return
        *frames, rest = b"".join((*self._parts, piece)).split(b"\n\n")
        self._parts = [rest] if rest else []
        self.size_bytes = len(rest)
        for frame in frames:
            kind, data = "", b""
            for line in frame.split(b"\n"):
                field, _, value = line.partition(b": ")
                if field == b"event":
                    kind = value.decode("ascii", "replace")
                elif field == b"data":
                    data = value
            if kind:
                yield kind, data
