"""Defines what a run has to know of the backend that it breaks."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from ._processes import Victim
from ._schedule import BACKEND_LINKS, Fault, Source
from ._workload import LARGEST_CHUNK_BYTES, POLICIES


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

    links: ClassVar[tuple[str, ...]] = BACKEND_LINKS
    """The links to its servers; none if it is reached without connections."""

    is_fenced: ClassVar[bool] = True
    """Whether it refuses what an attempt appends after the next one has begun; otherwise it
    acknowledges that, and readers drop it."""

    agrees_on_numbers: ClassVar[bool] = True
    """Whether writers and readers give an attempt the same number."""

    has_fan_out: ClassVar[bool] = True
    """Whether many readers read a stream; otherwise the workflow of its activity does."""

    policies: ClassVar[tuple[str, ...]] = POLICIES
    """What the next attempt may do."""

    streams_per_second: ClassVar[float] = 3.0
    """How many streams a run begins each second."""

    largest_chunk_bytes: ClassVar[int] = LARGEST_CHUNK_BYTES
    """Size of the largest chunks, less if it stores no more."""

    port: int = 0
    """Port that connections have to lead to now, if there is one server."""

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

    def port_of(self, link: str) -> int:
        """Return the port that a link has to lead to now."""
        return self.port

    def listen_port_of(self, link: str) -> int:
        """Return the port that a link has to listen on; 0 for any."""
        return 0

    def address_of(self, side: str, addresses: Mapping[str, str]) -> str:
        """Return what a process connects to.

        Args:
            side: ``WORKER_LINK`` or ``READER_LINK``.
            addresses: Address of each link.
        """
        return addresses.get(side, "")

    @abc.abstractmethod
    def settings(self, address: str) -> dict[str, str]:
        """Return the variables with which a process reaches it at an address of its links."""

    async def carry_out(self, fault: Fault) -> bool:
        """Begin and end a fault of :attr:`sources`, except those of a process or a link.

        The default is for a backend that has only those.

        Afterwards each link has to lead to its :meth:`port_of`.

        Returns:
            Whether it had an effect.
        """
        raise AssertionError(fault)
