"""Refuses a queue that lacks a capability which the caller requires.

Design: docs/design/contract.md.
"""

from __future__ import annotations

from collections.abc import Collection

from ._capabilities import Capabilities
from ._drivers import installed_drivers, load_driver
from ._errors import BackendLoadError, CapabilityError, ConfigurationError
from .driver import ChunkQueue


def check_capabilities(queue: ChunkQueue, require: Collection[str]) -> None:
    """Refuse a queue that does not declare what is required.

    Raises:
        CapabilityError: Names what is missing and the installed backends that have it.
        ConfigurationError: A required name is not a capability.
    """
    flags = Capabilities.flags()
    for name in require:
        if name not in flags:
            raise ConfigurationError(f"{name!r} is not a capability; known are: {', '.join(flags)}")
    missing = [name for name in require if not getattr(queue.capabilities, name)]
    if not missing:
        return
    able = []
    for name in installed_drivers():
        try:
            capabilities = load_driver(name).capabilities
        except BackendLoadError:
            continue  # a broken driver is no advice; selecting it says what is wrong
        if all(getattr(capabilities, flag) for flag in require):
            able.append(name)
    advice = f"STREAMQ_BACKEND={' or '.join(able)} could" if able else "no installed backend could"
    raise CapabilityError(
        f"backend {queue.backend!r} does not offer {', '.join(missing)}; {advice}",
        backend=queue.backend,
    )
