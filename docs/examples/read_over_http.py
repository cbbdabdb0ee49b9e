"""Reads a stream over HTTP until it has ended, whatever closes the connection meanwhile.

Needs httpx-sse. Run it with the address of a stream, and, where the gateway wants one, a file that
has a token: ``python read_over_http.py http://127.0.0.1:8330/events/NAME token.txt``
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import aconnect_sse


async def follow(url: str, token: Callable[[], str] | None = None) -> AsyncIterator[dict[str, Any]]:
    """Yield every event of a stream once; the last one is its ``end``.

    Only the event ``end`` ends a stream. A response that ends without it has reached the gateway's
    limit of age or the end of its token, or the gateway or the network has stopped: read on after
    the last id. ``token`` returns a token that is valid now; each connection asks for one.
    """
    place = ""
    pause = 1.0
    async with httpx.AsyncClient(timeout=httpx.Timeout(10, read=45)) as client:
        while True:
            headers = {"Last-Event-ID": place} if place else {}
            if token is not None:
                headers["Authorization"] = f"Bearer {token()}"
            try:
                async with aconnect_sse(client, "GET", url, headers=headers) as source:
                    response = source.response
                    if response.status_code == 204:  # this client already has the end
                        return
                    if response.status_code in (429, 502, 503, 504):  # passes by itself
                        after = response.headers.get("Retry-After", "")
                        await asyncio.sleep(float(after) if after.isdigit() else pause)
                        continue
                    if response.status_code != 200:  # 401, 404, 409 (another stream)
                        raise RuntimeError((await response.aread()).decode())
                    async for event in source.aiter_sse():
                        if not event.data:  # only says where this client is
                            place = event.id or place
                        elif event.event == "error":
                            if not event.json()["retryable"]:
                                raise RuntimeError(event.json()["message"])
                        elif event.event in ("chunk", "reset", "gap", "end"):
                            place = event.id
                            yield event.json()
                            if event.event == "end":
                                return
            except httpx.TransportError:
                pass
            await asyncio.sleep(pause)


async def main() -> None:
    """Print the values of the attempt that counts."""
    token = None if len(sys.argv) < 3 else lambda: Path(sys.argv[2]).read_text().strip()
    async for event in follow(sys.argv[1], token):
        if event["event"] == "chunk":
            print(event.get("value", event))
        elif event["event"] == "reset":
            print("-- another attempt starts over")
        elif event["event"] == "end":
            print(f"-- {event['state']}")


if __name__ == "__main__":
    asyncio.run(main())
