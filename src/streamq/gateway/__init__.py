"""The HTTP gateway: streams over Server-Sent Events, their status as JSON, and a page to watch one.

``create_app()`` makes an ASGI application, to run by itself (:func:`serve`, ``streamq serve``,
``uvicorn``) or to mount under a prefix of a FastAPI or Starlette application.
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
