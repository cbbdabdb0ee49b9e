"""The HTTP gateway: streams over Server-Sent Events, their status as JSON, and a page to watch one.

``create_app()`` makes an ASGI application, to run by itself (:func:`serve`, ``streamq serve``,
``uvicorn``) or to mount under a prefix of a FastAPI or Starlette application.

From the outside in:

* ``_app``: routes and their parameters. ``_page``, ``static/``: the page.
* ``_sse``: the response that sends a stream as Server-Sent Events. ``_error_responses``: errors.
* ``_gateway``: owns the queue, the hubs and the open connections.
* ``_follower``: reads a stream for one client. ``_hub``: reads a stream once for all clients.
* ``_ring``, ``_frames``: encoded events in memory. ``_failure_log``: logs each failure once.
* ``_server``: runs the application in the current event loop. ``_options``: bounds and deadlines.

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
from ._gateway import Gateway, GatewayStatistics
from ._options import GatewayOptions
from ._server import GatewayServer, serve

__all__ = [
    "Gateway",
    "GatewayOptions",
    "GatewayServer",
    "GatewayStatistics",
    "create_app",
    "serve",
]
