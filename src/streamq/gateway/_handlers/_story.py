"""Answers with what is stored of a stream: in pages of JSON, or whole as text.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from streamq._events import StreamId
from streamq.access import Action, Rights
from streamq.gateway._authority import visible_stream
from streamq.gateway._error_responses import HEADERS
from streamq.gateway._frames import frame_parts, to_json
from streamq.gateway._loops import gateway_of
from streamq.gateway._opening import CLIENT_GONE, ClientGoneError, follow_unless_gone
from streamq.gateway._parameters import start_place, wants_last_attempt
from streamq.gateway._throttled import AnyFollower
from streamq.opening._open import describe

from ._story_text import send_text, wants_text

VARIED = {**HEADERS, "Vary": "Accept"}
"""Headers of an answer that is text for who asks for text."""

_PAGE_BYTES = 1_048_576
_PAGE_SECONDS = 10.0


async def send_story(request: Request, asked: StreamId, rights: Rights) -> Response:
    """Answer with what is stored up to now, as JSON, in a part if it is much; or whole, as text."""
    if wants_text(request):
        return await send_text(request, asked, rights)
    stream = visible_stream(rights, Action.READ, asked)
    gateway = gateway_of(request)
    start = start_place(request)
    last_attempt = wants_last_attempt(request.query_params.get("attempts", "all"))
    client = gateway.client_of(request.scope, rights)
    async with gateway.questions.ask(client) as queue:
        status = await describe(stream, queue=queue, settings=gateway.brief_settings)
    follow = gateway.follow(
        stream, start, client=client, last_attempt=last_attempt, until=status.offset
    )
    try:
        follower = await follow_unless_gone(gateway, request.receive, follow)
    except ClientGoneError:
        return Response(status_code=CLIENT_GONE)
    page = _Page()
    after, is_complete = str(start), True
    if follower is not None:
        try:
            await _fill(page, follower, status.offset, last_attempt)
            after, is_complete = str(follower.place), follower.offset >= status.offset
        finally:
            gateway.leave(follower)
    head = {
        "tenant": asked.tenant,
        "name": asked.name,
        "attempt": status.attempt,
        "offset": status.offset,
        "state": status.seal.state.name if status.seal else "OPEN",
        "seal": status.seal.to_dict() if status.seal else None,
        "after": after,
        "is_complete": is_complete,
        "starts_over": page.starts_over,
    }
    return Response(page.document(head), media_type="application/json", headers=VARIED)


async def _fill(page: _Page, follower: AnyFollower, newest: int, last_attempt: bool) -> None:
    """Add the events up to ``newest``, as far as they fit and arrive in time."""
    is_searched = not last_attempt
    until = time.monotonic() + _PAGE_SECONDS
    while follower.offset < newest and page.size_bytes < _PAGE_BYTES:
        left = max(until - time.monotonic(), 0.0)
        data = await follower.read(left)
        if not data:
            if is_searched or follower.is_ended or not left:
                return  # the end, or others have their turn: the next page goes on
            is_searched = True  # it is known now where the last attempt begins
        page.add(data)


class _Page:
    """Collects encoded events; those that a reset makes void are left out."""

    def __init__(self) -> None:
        self.size_bytes = 0
        """Bytes that were added."""
        self.starts_over = False
        """Whether there was a reset, which makes all former pages void."""
        self._chunks: list[bytes] = []
        self._gaps: list[bytes] = []

    def add(self, frames: bytes) -> None:
        """Add whole frames of an event stream."""
        self.size_bytes += len(frames)
        for place, kind, data in frame_parts(frames):
            match kind:
                case b"chunk":
                    self._chunks.append(b'{"id":"%b",%b' % (place, data[1:]))
                case b"gap":
                    self._gaps.append(data)
                case b"reset":
                    self.starts_over = True
                    self._chunks.clear()
                    self._gaps.clear()

    def document(self, head: dict[str, object]) -> bytes:
        """Return the page as JSON, after other fields."""
        return b'%b,"gaps":[%b],"chunks":[%b]}' % (
            to_json(head).encode("ascii")[:-1],
            b",".join(self._gaps),
            b",".join(self._chunks),
        )
