"""Runs the gateway process."""

from __future__ import annotations

from streamq.gateway import GatewayOptions, create_app, serve

from ._setup import Setup, configure, open_patiently

OPTIONS = GatewayOptions(
    heartbeat_seconds=1.0, send_timeout_seconds=3.0, max_age_seconds=10.0, retry_seconds=0.1
)


async def run_gateway(setup: Setup, _name: str) -> None:
    """Serve until killed."""
    settings = configure(setup.reader_settings)
    app = create_app(
        await open_patiently(settings, setup.credentials_file), settings, options=OPTIONS
    )
    async with serve(app, port=setup.gateway_port) as server:
        await server.wait()
