"""Defines the allowances of one holder: what a tenant or a subject may have of what is bounded.

Design: docs/design/quotas.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamq._errors import QuotaError


@dataclass(frozen=True, slots=True)
class Allowance:
    """Most of one kind that one holder may have.

    Attributes:
        holder: The holder's name among all addresses, tenants and subjects.
        most: The number.
    """

    holder: str
    most: int

    def exceeded(self, kind: str) -> QuotaError:
        """Return the error of one more.

        It does not name the holder: a client learns about its own quota, not whose it is.
        """
        return QuotaError(
            f"the quota of this {self.holder.partition(' ')[0]} is {self.most} {kind}; "
            "close some, or try again later"
        )
