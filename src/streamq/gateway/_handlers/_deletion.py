"""Deletes a stream.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from streamq._events import StreamId
from streamq.access import Action, Rights
from streamq.calling import _calls as calling
from streamq.gateway._authority import check_visible
from streamq.gateway._error_responses import HEADERS
from streamq.gateway._loops import gateway_of
from streamq.opening._open import retry_policy


async def delete_stream(request: Request, asked: StreamId, rights: Rights) -> Response:
    """Delete a stream and answer 204, also if it is not there any more.

    One that the request may not know of is not there: the answer depends on its rights alone.
    """
    check_visible(rights, Action.DELETE, asked)
    gateway = gateway_of(request)
    async with gateway.questions.ask(gateway.client_of(request.scope, rights)) as queue:
        retry = retry_policy(gateway.brief_settings, queue, asked)
        await retry.run(lambda: calling.delete(queue, asked))
    gateway.end_readers(asked)
    return Response(status_code=204, headers=HEADERS)
