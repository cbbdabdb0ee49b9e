"""Defines the failure of a check: what was expected, what was seen, and the likely cause.

Design: docs/design/testing.md.
"""

from __future__ import annotations

from collections.abc import Sequence


class BrokenPromiseError(AssertionError):
    """The backend does not do what the contract demands. Raised by checks of the kit.

    Args:
        subject: What the check looked at.
        expected: What it should be, in words.
        seen: What it was.
        details: More lines: a difference, places where calls wait.
        cause: What usually causes this, and the next step; empty where only the check's own
            promises know it.
    """

    __module__ = "streamq.testing"

    def __init__(
        self,
        subject: str,
        *,
        expected: str,
        seen: str,
        details: Sequence[str] = (),
        cause: str = "",
    ) -> None:
        lines = [subject, f"  expected: {expected}", f"  seen:     {seen}"]
        super().__init__("\n".join([*lines, *(f"  {line}" for line in details)]))
        self.expected = expected
        self.seen = seen
        self.cause = cause
