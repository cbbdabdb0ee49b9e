"""Finds out how many connections the limit of file descriptors leaves room for.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import os
import resource

MOST_CONNECTIONS = 11_000
"""Most connections by default, whatever the limit of descriptors."""

_RESERVED = 64
"""Descriptors for the backend's connections, files and refusals."""

_RAISED = 16_384


def raise_descriptor_limit() -> None:
    """Raise the soft limit of descriptors to what the gateway can use, if the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _RAISED:
        return
    wanted = _RAISED if hard == resource.RLIM_INFINITY else min(_RAISED, hard)
    if wanted > soft:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # some systems refuse less than their hard limit, too
            return


def room_for_connections() -> int:
    """Return how many connections may be open, at least 8."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(min(MOST_CONNECTIONS, soft - _used() - _RESERVED), 8)


def _used() -> int:
    """Return how many descriptors are open, where the system can tell."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(folder))
        except OSError:
            continue
    return 0
