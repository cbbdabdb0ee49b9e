"""``streamq a2a``: serves an agent to A2A clients."""

from __future__ import annotations

import importlib
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from streamq._errors import ConfigurationError, error_text
from streamq._loopback import is_loopback
from streamq._settings import load_settings
from streamq.driver_parts._named_code import importing_named_code
from streamq.opening._open import configured_driver

from ._terminal import needs_extra, run_async, show_warning, stdout

if TYPE_CHECKING:
    from streamq.a2a.server import Agent
    from streamq.a2a.server._access import Access

a2a = typer.Typer(name="a2a")


@a2a.callback(invoke_without_command=True)
def _a2a(context: typer.Context) -> None:
    """Serve an agent that runs on Temporal to A2A clients."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@a2a.command("serve")
def serve_agent(
    name: Annotated[
        str, typer.Argument(metavar="MODULE:AGENT", help="Where the agent is declared.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(min=0, max=65_535, metavar="PORT", help="Port to listen on; 0 picks a free."),
    ] = 8000,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, metavar="PORT", help="Port for gRPC; without it there is no gRPC."
        ),
    ] = None,
) -> int:
    """Serve the card, JSON-RPC, HTTP+JSON and, with a port for it, gRPC.

    Run as many replicas as you like: none of them owns a task. Workers run elsewhere, with
    StreamqPlugin and AgentPlugin. The card has the addresses that the agent is declared with. Runs
    until Ctrl-C or SIGTERM.

    \b
    Examples:
      streamq a2a serve poet:agent
      STREAMQ_BACKEND=redis streamq a2a serve poet:agent --host 0.0.0.0 --grpc-port 8001
    """
    settings = load_settings()
    with needs_extra("a2a"):
        import grpc

        from streamq.a2a.server import TaskHandler, add_to_grpc_server, create_app
        from streamq.gateway import serve
    agent = _load(name)

    async def work() -> int:
        app = create_app(agent, settings=settings)
        handler: TaskHandler = app.state.handler
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(serve(app, host, port))
            await handler.open()  # reports at once what cannot be reached
            notice = Text.assemble(
                (server.url, "bold"), f"  serves agent {agent.agent_name}; Ctrl-C stops it"
            )
            if grpc_port is not None:
                service = grpc.aio.server()
                address = f"[{host}]" if ":" in host else host
                try:
                    bound = service.add_insecure_port(f"{address}:{grpc_port}")
                except RuntimeError as exc:
                    raise ConfigurationError(
                        f"cannot listen on {host} port {grpc_port} for gRPC: {error_text(exc)}"
                    ) from exc
                add_to_grpc_server(service, handler)
                await service.start()
                stack.push_async_callback(service.stop, 3)
                notice.append(f"\ngrpc: {address}:{bound}")
            stdout().print(notice, soft_wrap=True)
            sys.stdout.flush()
            if not configured_driver(settings)[0].capabilities.cross_process:
                show_warning(
                    f"backend {settings.backend} keeps the streams of one process only, and "
                    "workers are others: tasks stay without events; choose another "
                    "STREAMQ_BACKEND, or serve create_app() where the worker runs"
                )
            if not is_loopback(host):
                _warn_of_the_network(host, handler.access)
            await server.wait()
        return 0

    return run_async(work, on_sigterm=0)


def _warn_of_the_network(host: str, access: Access) -> None:
    """Say what others on the network can do, or see."""
    if access.authority.needs_tokens:
        show_warning(
            f"the server takes tokens on {host} without encryption: whoever is on the way can use "
            "them; put a proxy with TLS in front"
        )
    if permitted := access.authority.permitted_without_token:
        show_warning(
            f"whoever can reach this server on {host} may {', '.join(permitted)} all tasks that "
            "nobody's token has started: it asks for no credentials; set STREAMQ_TOKEN_KEY_FILE or "
            "STREAMQ_TOKEN_ISSUERS, or put a proxy in front that authenticates"
        )


def _load(name: str) -> Agent:
    """Return the agent that a name means.

    Raises:
        ConfigurationError: There is none.
    """
    from streamq.a2a.server import Agent

    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigurationError(f"{name!r} names no agent: write MODULE:AGENT, as in poet:agent")
    try:
        with importing_named_code():
            found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as exc:
        raise ConfigurationError(
            f"agent {name!r} cannot be loaded: {error_text(exc)}; write MODULE:AGENT, where MODULE "
            "is a file of this directory, without .py, or an installed module"
        ) from exc
    if not isinstance(found, Agent):
        raise ConfigurationError(f"{name!r} has the type {type(found).__name__}, not Agent")
    return found
