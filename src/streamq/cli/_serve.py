"""``streamq serve``: runs the HTTP gateway."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from streamq._settings import load_settings
from streamq.opening._data_converter import configured_conversion
from streamq.opening._open import stream_id
from streamq.opening._requirements import check_capabilities

from ._terminal import needs_extra, run_async, stdout


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="STREAMQ_GATEWAY_HOST")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_535,
            metavar="PORT",
            help="Port to listen on; 0 picks a free one.",
            show_default="STREAMQ_GATEWAY_PORT",
        ),
    ] = None,
) -> int:
    """Serve streams over HTTP, with a page to watch them.

    Server-Sent Events for programs, the page for people. Runs until Ctrl-C or SIGTERM.

    \b
    Examples:
      streamq serve
      STREAMQ_BACKEND=redis streamq serve --host 0.0.0.0 --port 8080
    """
    overrides: dict[str, object] = {}
    if host is not None:
        overrides["gateway_host"] = host
    if port is not None:
        overrides["gateway_port"] = port
    settings = load_settings(**overrides)
    configured_conversion(settings, stream_id("any", settings))  # raises if the converter is wrong
    with needs_extra("gateway"):
        from streamq.gateway import create_app
        from streamq.gateway import serve as serve_app

    async def work() -> int:
        app = create_app(settings=settings)
        async with serve_app(app, settings.gateway_host, settings.gateway_port) as server:
            # Without replay, the gateway would take records away from their reader.
            check_capabilities(await app.state.gateway.open(), ["replay"])
            notice = Text.assemble(
                (server.url, "bold"), f"  serves backend {settings.backend}; Ctrl-C stops it"
            )
            stdout().print(notice, soft_wrap=True)
            await server.wait()
        return 0

    return run_async(work, on_sigterm=0)
