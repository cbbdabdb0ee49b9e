"""Runs the chat on this machine: Temporal, a worker for each company, the back end, the page.

python docs/examples/chat/run.py        # and open the address that it prints
"""

import argparse
import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from temporalio.client import Client
from temporalio.worker import Worker

from back_end import USERS, create_chat
from streamq import load_settings
from streamq.devserver import TemporalDevServer, free_port
from streamq.gateway import serve
from streamq.temporal import StreamqPlugin
from turns import Turn, answer

_PAGE = Path(__file__).parent / "page"


def create_page(back_end: str) -> Starlette:
    """Return the page's own server: files, and where the back end is."""

    async def config(_request: Request) -> Response:
        return Response(f'export const BACK_END = "{back_end}";\n', media_type="text/javascript")

    return Starlette(
        routes=[Route("/config.js", config), Mount("/", StaticFiles(directory=_PAGE, html=True))]
    )


async def main() -> None:
    """Run until Ctrl-C or SIGTERM."""
    options = argparse.ArgumentParser(description="A chat over streamq.")
    options.add_argument("--port", type=int, default=8000, help="of the back end; 0: a free one")
    options.add_argument("--page-port", type=int, default=8001, help="of the page; 0: a free one")
    options.add_argument("--token-seconds", type=float, default=300.0, help="how long tokens last")
    given = options.parse_args()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    companies = sorted({user.company for user in USERS.values()})
    with TemporalDevServer() as temporal:
        async with AsyncExitStack() as stack:
            client = await Client.connect(temporal.address)
            for company in companies:
                plugin = StreamqPlugin(settings=load_settings(tenant=company))
                worker = Worker(
                    client,
                    task_queue=f"chat-{company}",
                    workflows=[Turn],
                    activities=[answer],
                    plugins=[plugin],
                )
                await stack.enter_async_context(worker)
            settings = load_settings(
                temporal_address=temporal.address, gateway_cancel_tenants=",".join(companies)
            )
            port = given.port or free_port()
            page = create_page(f"http://127.0.0.1:{port}")
            page_server = await stack.enter_async_context(serve(page, port=given.page_port))
            chat = create_chat(client, settings, page_server.url, given.token_seconds)
            await stack.enter_async_context(serve(chat, port=port))
            print(f"the chat is at {page_server.url}; Ctrl-C stops it", flush=True)
            await stopped.wait()


if __name__ == "__main__":
    asyncio.run(main())
