"""Answers with the text of the last attempt of a stream, whole.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response

from streamq._events import StreamId, place_text
from streamq.access import Action, Rights
from streamq.gateway._authority import visible_stream
from streamq.gateway._clients import GatewayLimitError
from streamq.gateway._error_responses import BadRequestError
from streamq.gateway._gateway import Gateway
from streamq.gateway._loops import gateway_of
from streamq.gateway._opening import CLIENT_GONE, ClientGoneError, follow_unless_gone
from streamq.gateway._parameters import wants_last_attempt
from streamq.gateway._places import EventPlace
from streamq.gateway._story_text import ChunkText, StoryStatus, StoryText
from streamq.gateway._throttled import AnyFollower
from streamq.opening._open import retry_policy
from streamq.reading._tail import read_tail

_BEGIN_SECONDS = 50.0
_PLACES = ("after", "last_event_id", "from")


def wants_text(request: Request) -> bool:
    """Return whether a request asks for text: by ``?as=text``, or ``Accept`` prefers it to JSON.

    Raises:
        BadRequestError: ``as`` is neither ``text`` nor ``json``.
    """
    form = request.query_params.get("as")
    if form is not None:
        if form not in ("text", "json"):
            raise BadRequestError(f"as is {form[:40]!r}; it can be 'text' or 'json'")
        return form == "text"
    named = dict(_accepted(request.headers.get("accept", "")))
    # Many clients name both, with the same preference, and expect JSON.
    return named.get("text/plain", 0.0) > named.get("application/json", 0.0)


async def send_text(request: Request, asked: StreamId, rights: Rights) -> Response:
    """Answer with the text of the last attempt up to the newest event of now."""
    given = [name for name in _PLACES if name in request.query_params]
    if given:
        raise BadRequestError(
            f"{given[0]} is for pages of JSON; text has the whole of the last attempt"
        )
    if not wants_last_attempt(request.query_params.get("attempts", "last")):
        raise BadRequestError("attempts is 'all'; text has the last attempt only: leave it out")
    stream = visible_stream(rights, Action.READ, asked)
    gateway = gateway_of(request)
    client = gateway.client_of(request.scope, rights)
    async with gateway.questions.ask(client) as queue:
        tail = await read_tail(queue, stream, retry_policy(gateway.brief_settings, queue, stream))
    seal, newest = tail.status.seal, tail.status.offset
    status = StoryStatus(
        "OPEN" if seal is None else seal.state.name,
        tail.status.attempt,
        newest,
        place_text(newest, tail.state.event_epoch),
    )
    text, first = ChunkText(asked, newest), bytearray()

    async def begin() -> AnyFollower | None:
        follower = await gateway.follow(
            stream, EventPlace(0), client=client, last_attempt=True, until=newest
        )
        if follower is not None:
            first.extend(await _first_text(gateway, follower, text))
        return follower

    try:
        follower = await follow_unless_gone(gateway, request.receive, begin())
    except ClientGoneError:
        return Response(status_code=CLIENT_GONE)
    assert follower is not None  # it has not got the end of the stream yet
    return StoryText(
        gateway,
        follower,
        asked=asked,
        status=status,
        text=text,
        first=bytes(first),
        rights=rights,
    )


async def _first_text(gateway: Gateway, follower: AnyFollower, text: ChunkText) -> bytes:
    """Return what comes first: what is wrong with the stream is an error before the response.

    Raises:
        TrimmedError: The beginning of the last attempt is no longer stored.
        GatewayLimitError: Nothing came in time.
        StreamqError: The stream cannot be read.
    """
    until = time.monotonic() + _BEGIN_SECONDS
    try:
        while follower.offset < text.newest and not follower.is_ended:
            left = until - time.monotonic()
            if left <= 0:
                raise GatewayLimitError(
                    f"the gateway is busy: nothing was read within {_BEGIN_SECONDS:g} s; try "
                    "again later"
                )
            if found := await follower.read(left):
                return text.add(found)
    except BaseException:
        gateway.leave(follower)
        raise
    return b""


def _accepted(header: str) -> Iterator[tuple[str, float]]:
    """Yield the media types that ``Accept`` names, each with its preference."""
    for part in header.split(","):
        name, _, parameters = part.partition(";")
        quality = 1.0
        for each in parameters.split(";"):
            key, _, value = each.partition("=")
            if key.strip().lower() == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 0.0
        yield name.strip().lower(), quality
