"""Finds the extensions of A2A that apply to a request: those that agent and client both name.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

from collections.abc import Collection

from a2a.extensions.common import HTTP_EXTENSION_HEADER, get_requested_extensions
from a2a.server.context import ServerCallContext
from a2a.utils.errors import ExtensionSupportRequiredError
from starlette.datastructures import Headers

from ._access_request import request_of
from ._agent import Agent


def requested_by(headers: Headers) -> set[str]:
    """Return the extensions that the headers of a request name."""
    return get_requested_extensions(headers.getlist(HTTP_EXTENSION_HEADER))


def requested(context: ServerCallContext) -> set[str]:
    """Return the extensions that a call names."""
    return context.requested_extensions | requested_by(request_of(context).headers)


def activated(agent: Agent, names: Collection[str]) -> list[str]:
    """Return those of some extensions that an agent has, in its order."""
    return [each.uri for each in agent.all_extensions() if each.uri in names]


def check_required(agent: Agent, names: Collection[str]) -> None:
    """Check that a client names every extension without which an agent cannot be understood.

    Raises:
        ExtensionSupportRequiredError: It does not.
    """
    missing = [each.uri for each in agent.all_extensions() if each.required]
    missing = [uri for uri in missing if uri not in names]
    if missing:
        raise ExtensionSupportRequiredError(
            f"This agent needs its clients to activate {', '.join(missing)}: name it in the "
            f"header {HTTP_EXTENSION_HEADER}, or with gRPC in the metadata"
        )
