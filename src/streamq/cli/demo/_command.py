"""``streamq demo``: a real workflow streams real input, which is shown as it arrives."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from typing import Annotated, cast

import typer

from streamq._settings import Settings, build, load_settings
from streamq.cli._completion import backend_names, deliveries
from streamq.cli._terminal import needs_extra, run_async
from streamq.devserver import TemporalDevServer
from streamq.driver import TemporalEndpoint
from streamq.opening._drivers import load_driver
from streamq.opening._open import open_queue

from ._plan import Delivery, Plan, choose_source

_TEMPORAL_ADDRESS = "STREAMQ_TEMPORAL_ADDRESS"
_TEMPORAL_NAMESPACE = "STREAMQ_TEMPORAL_NAMESPACE"


def _delivery(value: str) -> str:
    if value not in ("none", "poll"):
        raise typer.BadParameter(f"{value!r} is neither 'none' nor 'poll'")
    return value


def demo(
    file: Annotated[
        str | None, typer.Option(metavar="PATH", help="Stream a text file; '-' is stdin.")
    ] = None,
    command: Annotated[
        str | None,
        typer.Option("--exec", metavar="COMMAND", help="Stream the output of a shell command."),
    ] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Stream standard input.")] = False,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Stream a language model's answer (OPENAI_BASE_URL, OPENAI_API_KEY).",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Language model to use (OPENAI_MODEL).")
    ] = None,
    pace: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="WORDS", help="Words per second of a text or file; 0 means no limit."
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Backend to use.",
            envvar="STREAMQ_BACKEND",
            autocompletion=backend_names,
        ),
    ] = None,
    delivery: Annotated[
        str,
        typer.Option(
            metavar="none|poll",
            callback=_delivery,
            autocompletion=deliveries,
            help="Whether the workflow gets the chunks, too.",
        ),
    ] = "none",
    temporal_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of a running Temporal server, instead of one for the demo only.",
            envvar="STREAMQ_TEMPORAL_ADDRESS",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, metavar="PORT", help="Port of the page; by default a free one."
        ),
    ] = None,
    fail_once: Annotated[
        bool, typer.Option("--fail-once", help="Let the first attempt fail, to show the retry.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the page running afterwards, until Ctrl-C.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON; the rest goes to stderr.")
    ] = False,
) -> int:
    """Show the output of a Temporal activity while it runs.

    Starts a Temporal server, a worker and the gateway, runs one workflow, shows its stream here
    and on a page, and stops everything. The exit code is 0 if the stream ended well.

    \b
    Examples:
      streamq demo
      streamq demo --exec 'ping -c 5 localhost'
      streamq demo --file README.md --pace 0 --json
      streamq demo --fail-once --backend redis
      tail -f app.log | streamq demo --stdin --keep
      OPENAI_BASE_URL=http://127.0.0.1:11434/v1 streamq demo --prompt 'Why is the sky blue?'
    """
    source = choose_source(
        file=file,
        command=command,
        stdin=stdin,
        prompt=prompt,
        model=model,
        pace=pace,
        fail_once=fail_once,
    )
    chosen = {"backend": backend, "temporal_address": temporal_address, "gateway_port": port}
    settings = load_settings(**{name: value for name, value in chosen.items() if value is not None})
    explicit = settings.model_fields_set
    plan = Plan(
        source=source,
        settings=settings,
        delivery=cast(Delivery, delivery),
        gateway_port=settings.gateway_port if "gateway_port" in explicit else 0,
        fail_once=fail_once,
        keep=keep,
        as_json=as_json,
    )

    async def work() -> int:
        async with AsyncExitStack() as stack:
            # The backend comes first, so that nothing else is started if it cannot be used.
            embedded = stack.enter_context(_embedded_backend(settings.backend))
            # A backend inside Temporal starts a server, which the demo uses as well.
            address = embedded.get(_TEMPORAL_ADDRESS)
            endpoint = _configured_endpoint(settings)
            if endpoint is None and address:
                namespace = embedded.get(_TEMPORAL_NAMESPACE)
                endpoint = settings.temporal_target.local(address, namespace)
            queue = await stack.enter_async_context(open_queue(settings))
            reading = await stack.enter_async_context(open_queue(settings))
            server: TemporalDevServer | None = None
            if endpoint is None:
                server = TemporalDevServer(namespace=settings.temporal_namespace)
                stack.callback(server.stop)
                server.launch()
            # This import is slow; the server starts in the meantime.
            with needs_extra("demo"):
                from ._run import run_demo
            return await run_demo(
                plan,
                queue=queue,
                reading=reading,
                server=server,
                endpoint=endpoint,
                outlives=not embedded,
            )

    return run_async(work)


def _configured_endpoint(settings: Settings) -> TemporalEndpoint | None:
    """Return the Temporal server that is configured; none if none is, or the address is empty."""
    if not settings.temporal_address:
        return None
    with needs_extra("demo"):
        endpoint = settings.temporal_target.resolve()
    return endpoint if endpoint.is_configured else None


@contextmanager
def _embedded_backend(name: str) -> Iterator[Mapping[str, str]]:
    """Run the small server that comes with the backend, if no other is configured.

    Yields the environment variables that point to it, and sets them meanwhile; yields none if no
    server is run.
    """
    driver = load_driver(name)
    server = driver.embedded(build(driver.settings_type))
    if server is None:
        yield {}
        return
    with server as variables:
        new = {name: value for name, value in variables.items() if name not in os.environ}
        os.environ.update(new)
        try:
            yield variables
        finally:
            for variable in new:
                os.environ.pop(variable, None)
