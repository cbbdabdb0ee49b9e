"""Wakes the reading thread: for its jobs, and for commits.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import contextlib
import math
import selectors
import socket
import threading
import time

from ._doorbells import Doorbell, Doorbells

_POLL_SECONDS = 1.0  # in case a wake-up was lost
_POLL_SECONDS_WITHOUT_BELL = 0.05
_KEEP_BELL_SECONDS = 2.0


class CommitListener:
    """What one thread waits at.

    It listens to commits from the moment at which a read begins to wait until none has waited for a
    while, so that writers wake nobody without need.

    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wake_in, self._wake_out = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._bell: Doorbell | None = None
        self._deaf_at = -math.inf

    def wake(self) -> None:
        """Let :meth:`wait` return; from any thread, also after :meth:`close`."""
        # Closed meanwhile, the descriptor might be another one.
        with self._lock, contextlib.suppress(OSError):  # full: the thread is about to wake anyway
            self._wake_in.send(b"\0", socket.MSG_DONTWAIT)

    def wait(self, *, for_records: bool) -> None:
        """Wait until there is something to do, or to look for.

        Args:
            for_records: Whether reads are waiting: then it also returns after a commit, and now and
                then in case a wake-up was lost.
        """
        for key, _ in self._selector.select(self._patience(for_records)):
            if key.fileobj is self._wake_out:
                self._wake_out.recv(4096)
            else:
                self._silence()

    def hear_commits(self, doorbells: Doorbells | None) -> None:
        """Have every commit to the database announced from now on, of whichever process."""
        self._deaf_at = time.monotonic() + _KEEP_BELL_SECONDS
        self._renew_bell(doorbells)

    def rest(self) -> None:
        """Listen to commits no longer if no read has waited for a while."""
        if time.monotonic() >= self._deaf_at:
            self._drop_bell()

    def close(self) -> None:
        """Release everything; for the thread that waits."""
        self._drop_bell()
        self._selector.close()
        with self._lock:
            self._wake_in.close()
        self._wake_out.close()

    def _patience(self, for_records: bool) -> float | None:
        """Return for how many seconds the thread may sleep; ``None`` means without end."""
        if for_records:
            return _POLL_SECONDS_WITHOUT_BELL if self._bell is None else _POLL_SECONDS
        return None if self._bell is None else _KEEP_BELL_SECONDS

    def _renew_bell(self, doorbells: Doorbells | None) -> None:
        """Install a bell unless there is one that :meth:`Doorbells.ring` reaches."""
        if self._bell is not None and doorbells is not None and self._bell.is_in(doorbells):
            return
        self._drop_bell()
        self._bell = None if doorbells is None else doorbells.install()
        if self._bell is not None:
            self._selector.register(self._bell, selectors.EVENT_READ)

    def _silence(self) -> None:
        if self._bell is not None:
            self._bell.silence()

    def _drop_bell(self) -> None:
        if self._bell is not None:
            self._selector.unregister(self._bell)
            self._bell.close()
            self._bell = None
