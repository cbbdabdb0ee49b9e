"""The HTTP gateway: streams over Server-Sent Events, their status as JSON, and a page to watch one.

``create_app()`` makes an ASGI application, to run by itself (:func:`serve`, ``streamq serve``,
``uvicorn``) or to mount under a prefix of a FastAPI or Starlette application.

From the outside in:

* ``_app``: the application. ``_sites``: from which sites requests may come.
* ``_routes``: which request goes to which handler. ``_handlers/``: the answers, a module for each
  kind; ``_parameters``: what they read of a request. ``_authority``,
  ``_credentials``: what a request may do.
* ``_authorize``, ``_request_rights``: the same with the application's own code.
* ``_own_routes``: answers from routes of the application.
* ``_error_handlers``, ``_error_responses``: answers for errors. ``_page``, ``static/``: the page.
* ``_sse``, ``_opening``: the response that sends a stream as Server-Sent Events, and its beginning.
* ``_loops``, ``_gateway``: own the queues (``_queues``), the hubs and the open connections.
* ``_follower``: reads a stream for one client. ``_hub``: reads its live events for all clients.
  ``_catch_up``: reads the others, in pages.
* ``_ring``, ``_pages``, ``_frames``, ``_places``: encoded events in memory, and their places.
* ``_clients``, ``_questions``, ``_turns``, ``_pacer``: bounds, and who comes next; ``_options``
  has their values.
* ``_stopping``: cancels in Temporal what produces a stream.
* ``_revocations``: which tokens were revoked, and the connections that end for it.
* ``_failure_log``, ``_log_limit``: what is logged, and how often.
* ``_server``: runs the application in the current event loop. ``_listener``, ``_http_protocol``,
  ``_descriptors``: its connections. ``_server_watch``: notices that any server stops.

Design: docs/design/gateway.md.
"""

try:
    import starlette as _starlette  # noqa: F401
    import uvicorn as _uvicorn  # noqa: F401
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError(
        f'streamq.gateway needs {exc.name}; run: pip install "streamq[gateway]"', name=exc.name
    ) from exc

from ._app import create_app
from ._authorize import Authorize, token_rights
from ._descriptors import raise_descriptor_limit
from ._gateway import Gateway
from ._gateway_statistics import GatewayStatistics
from ._options import GatewayOptions
from ._own_routes import StreamResponses
from ._server import GatewayServer, serve

__all__ = [
    "Authorize",
    "Gateway",
    "GatewayOptions",
    "GatewayServer",
    "GatewayStatistics",
    "StreamResponses",
    "create_app",
    "raise_descriptor_limit",
    "serve",
    "token_rights",
]
