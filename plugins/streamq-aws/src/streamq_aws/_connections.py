"""Leaves the connections of a queue when an answer shows that they may lead to the wrong server.

A name may move to another server while the old one stays up and keeps its connections. A connection
in use never closes by itself, and would lead to the old server for good.

Design: docs/design/aws.md.
"""

from __future__ import annotations

import time
from typing import Any

from ._errors import is_throttling

RESOLVED_SECONDS = 1
"""How long the address of a name is remembered."""

_LEAVING_SECONDS = 10.0
_MISDIRECTED = frozenset({301, 307, 308, 405, 421})
_SERVER_ERROR = 500


class ServiceConnections:
    """The connections of all clients of one queue.

    For some seconds after such an answer each request asks for its connection to be closed behind
    it. So each old connection is used once more at most, and each new one is made to the address
    that the name then has.
    """

    def __init__(self) -> None:
        self._leave_until = float("-inf")

    def watch(self, client: Any) -> None:
        """Heed the answers to a client, and close its connections when they are to be left."""
        service = client.meta.service_model.service_id.hyphenize()
        client.meta.events.register(f"before-send.{service}", self._close_behind)
        client.meta.events.register(f"needs-retry.{service}", self._heed)

    def leave(self) -> None:
        """Leave all connections: an answer came from another server."""
        self._leave_until = time.monotonic() + _LEAVING_SECONDS

    def _close_behind(self, request: Any, **_: object) -> None:
        if time.monotonic() < self._leave_until:
            request.headers["Connection"] = "close"

    def _heed(self, response: Any, caught_exception: Any, **_: object) -> None:
        if caught_exception is not None:
            self.leave()
        elif response is not None:
            status, code = response[0].status_code, response[1].get("Error", {}).get("Code", "")
            is_about_server = status >= _SERVER_ERROR or status in _MISDIRECTED
            if is_about_server and not is_throttling(str(code)):
                self.leave()
