"""Serves static files: the page that shows a stream as it arrives, and the JavaScript client.

They load nothing from elsewhere. The client's modules may be imported by pages of other origins
that read by CORS.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ._client_package import client_package

_FILES = {
    "/": ("page/page.html", "text/html"),
    "/page.css": ("page/page.css", "text/css"),
    "/page/values.css": ("page/values.css", "text/css"),
    "/client.js": ("client.js", "text/javascript"),
    "/client.d.ts": ("client.d.ts", "application/typescript"),
}
_CLIENT = "client"
_CLIENT_FILES = ("client.js", "client.d.ts")
_PAGE = "page"
_STATIC = resources.files(__package__) / "static"
_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def page_routes() -> list[Route]:
    """Return the routes of the files, whose links are relative so that they can be mounted."""
    modules = _modules(_CLIENT)
    scripts = [*modules, *_modules(_PAGE)]
    files = _FILES | {f"/{name}": (name, "text/javascript") for name in scripts}
    packed = client_package({name: _content(name) for name in (*_CLIENT_FILES, *modules)})
    return [
        *(_route(path, _content(name), media_type) for path, (name, media_type) in files.items()),
        _route("/client.tgz", packed, "application/gzip"),
    ]


def _modules(folder: str) -> list[str]:
    """Return the names of the scripts of a folder."""
    names = (each.name for each in (_STATIC / folder).iterdir())
    return sorted(f"{folder}/{name}" for name in names if name.endswith(".js"))


def _content(name: str) -> bytes:
    return (_STATIC / name).read_bytes()


def _route(path: str, content: bytes, media_type: str) -> Route:
    async def serve(_request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return Route(path, serve, methods=["GET"])
