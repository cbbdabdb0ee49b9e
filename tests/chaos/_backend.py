"""Defines what a run has to know of the backend that it breaks."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from ._processes import Victim
from ._schedule import Fault, Source


class Backend(abc.ABC):
    """A backend with its servers, and what can be broken of it.

    Args:
        directory: Where it may keep files; those of a run are there, too.

    Attributes:
        victims: Its servers, by their name in the schedule.
    """

    name: ClassVar[str]
    """Value for ``STREAMQ_BACKEND``."""

    sources: ClassVar[tuple[Source, ...]]
    """The faults that only this backend has, and those of its servers."""

    has_network: ClassVar[bool]
    """Whether workers and readers reach it by connections, which can be broken."""

    port: int = 0
    """Port that connections have to lead to now, if there are any."""

    credentials_file: Path | None = None
    """File with the password that is valid now, if there is one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.victims: Mapping[str, Victim] = {}

    @abc.abstractmethod
    async def start(self) -> None:
        """Start everything.

        Raises:
            StreamqError: A server does not start.
        """

    @abc.abstractmethod
    def stop(self) -> None:
        """Stop everything. Idempotent."""

    @abc.abstractmethod
    def settings(self, address: str) -> dict[str, str]:
        """Return the variables with which a process reaches it at an address, a link's."""

    @abc.abstractmethod
    async def carry_out(self, fault: Fault) -> bool:
        """Begin and end a fault of :attr:`sources`, except those of a process or a link.

        Afterwards connections have to lead to :attr:`port`.

        Returns:
            Whether it had an effect.
        """
