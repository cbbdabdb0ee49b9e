"""Gives a ticket for the events of one stream.

Design: docs/design/access.md.
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from streamq._events import StreamId
from streamq.access import Action, Rights
from streamq.gateway._authority import check_visible
from streamq.gateway._error_responses import (
    HEADERS,
    BadRequestError,
    MissingTokenError,
    TicketsOffError,
)
from streamq.gateway._loops import gateway_of


async def send_ticket(request: Request, asked: StreamId, rights: Rights) -> Response:
    """Answer with a ticket for a stream that the token may read, which need not exist yet."""
    office = gateway_of(request).authority.tickets
    if office is None:
        raise TicketsOffError(
            "this gateway gives no tickets: that needs STREAMQ_GATEWAY_TICKET_KEY, a secret of at "
            "least 32 bytes"
        )
    if rights.token_id is None:
        raise MissingTokenError("a ticket needs a token in the header Authorization")
    check_visible(rights, Action.READ, asked)
    try:
        ticket, seconds = office.issue(rights, asked)
    except ValueError as exc:
        raise BadRequestError(str(exc)) from None
    return JSONResponse(
        {
            "ticket": ticket,
            "expires_in_seconds": round(seconds, 3),
            "path": f"t/{asked.tenant}/events/{quote(asked.name, safe='')}?ticket={ticket}",
        },
        headers=HEADERS,
    )
