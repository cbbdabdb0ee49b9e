"""``streamq serve``: runs the HTTP gateway."""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import socket
import sys
from typing import Annotated

import typer
from rich.text import Text

from streamq._loopback import is_loopback
from streamq._settings import load_settings
from streamq.opening._data_converter import configured_conversion
from streamq.opening._open import configured_driver, stream_id
from streamq.opening._requirements import check_capabilities

from ._terminal import needs_extra, run_async, show_warning, stdout

# A live read of SQLite is several short steps of a thread, and each may have to wait this long for
# the thread of the event loop. With Python's 5 ms, twenty clients that re-read a long stream delay
# live readers by 45 ms; with this by 18 ms.
_SWITCH_SECONDS = 0.0005


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
    configured_driver(settings)  # raises if a variable is
    with needs_extra("gateway"):
        from streamq.gateway import raise_descriptor_limit
        from streamq.gateway import serve as serve_app
        from streamq.gateway._app import build_app
        from streamq.gateway._authority import actions_without_token

    async def work() -> int:
        raise_descriptor_limit()
        app = build_app(settings=settings)
        async with serve_app(app, settings.gateway_host, settings.gateway_port) as server:
            # Without replay, the gateway would take records away from their reader.
            queue = await app.state.gateway.open()
            check_capabilities(queue, ["replay"])
            url, *others = _urls(server.host, server.port) or [server.url]
            notice = Text.assemble(
                (url, "bold"), f"  serves backend {settings.backend}; Ctrl-C stops it"
            )
            stdout().print(notice, soft_wrap=True)
            for other in others:
                stdout().print(Text(other, style="bold"), soft_wrap=True)
            sys.stdout.flush()
            if not queue.capabilities.cross_process:
                show_warning(
                    f"backend {settings.backend} shows the streams of one process only, and "
                    "nothing writes any in this one: choose another STREAMQ_BACKEND, or mount "
                    "create_app() where the producers run"
                )
            needs_tokens = app.state.gateway.authority.needs_tokens
            permitted = actions_without_token(settings, needs_tokens=needs_tokens)
            if not is_loopback(server.host) and needs_tokens:
                show_warning(
                    f"port {server.port} of this machine takes tokens without encryption: whoever "
                    "is on the way can use them; put a proxy with TLS in front"
                )
            if not is_loopback(server.host) and permitted:
                whose = (
                    "every tenant"
                    if settings.gateway_trust_tenants
                    else f"tenant {settings.tenant}"
                )
                show_warning(
                    f"whoever can reach port {server.port} of this machine may "
                    f"{', '.join(permitted)} every stream of {whose} on backend "
                    f"{settings.backend}: the gateway asks for no credentials; use --host "
                    "127.0.0.1, or put a proxy in front that authenticates"
                )
            # What exists by now stays: without it, a collection takes a few ms instead of 50.
            gc.collect()
            gc.freeze()
            sys.setswitchinterval(_SWITCH_SECONDS)
            await server.wait()
        return 0

    return run_async(work, on_sigterm=0)


def _urls(address: str, port: int) -> list[str]:
    """Return the URLs by which a bound address is reached: from this machine, then from others."""
    bare = ipaddress.ip_address(address.partition("%")[0])
    found = [bare]
    if bare.is_unspecified:
        found = [ipaddress.ip_address("127.0.0.1" if bare.version == 4 else "::1")]
        found += own_addresses(bare.version)
    return [
        f"http://[{each}]:{port}" if each.version == 6 else f"http://{each}:{port}"
        for each in dict.fromkeys(found)
    ]


def own_addresses(version: int) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the address of this machine that others see, as far as its routes tell."""
    family, elsewhere = (
        (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    )
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((elsewhere, 9))  # sends nothing
        return [ipaddress.ip_address(probe.getsockname()[0])]
    return []
