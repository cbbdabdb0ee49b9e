"""Determines the effect of a bucket's lifecycle rules on the objects below a prefix.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

NONCURRENT = "NoncurrentVersionExpiration"
UNFINISHED = "AbortIncompleteMultipartUpload"

_ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes from which objects have to be restored before they can be read."""


class LifecycleRules:
    """The lifecycle rules of a bucket, as far as they apply to the objects below one prefix.

    Args:
        rules: The rules, as S3 returns them.
        prefix: Beginning of the objects' keys, including the last slash.
    """

    def __init__(self, rules: Sequence[dict[str, Any]], prefix: str) -> None:
        self.rules = rules
        self._prefix = prefix

    def days(self) -> int | None:
        """Return after how many days every object is removed; ``None`` if some stay."""
        return self._fewest("Expiration", "Days")

    def noncurrent_days(self) -> int | None:
        """Return after how many days every old version is removed; ``None`` if some stay."""
        return self._fewest(NONCURRENT, "NoncurrentDays")

    def unfinished_days(self) -> int | None:
        """Return after how many days unfinished uploads are removed; ``None`` if some stay."""
        return self._fewest(UNFINISHED, "DaysAfterInitiation")

    def harm(self, days: int) -> str | None:
        """Return what the rules do to objects younger than so many days; ``None`` if nothing."""
        for rule in self._for_any():
            name, expiration = rule.get("ID", "without a name"), rule.get("Expiration", {})
            if "Date" in expiration:
                return f"rule {name} removes objects at a date"
            if int(expiration.get("Days", days)) < days:
                return f"rule {name} removes objects after {expiration['Days']} days"
            for transition in rule.get("Transitions", ()):
                is_early = "Date" in transition or int(transition.get("Days", 0)) < days
                if is_early and transition.get("StorageClass") in _ARCHIVES:
                    return f"rule {name} moves objects to {transition['StorageClass']}"
        return None

    def with_rule(self, name: str, actions: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the rules with streamq's own rule, or with more actions in it."""
        rule = {"ID": name, "Status": "Enabled", "Filter": {"Prefix": self._prefix}}
        ours = next((each for each in self.rules if each.get("ID") == name), {})
        others = [each for each in self.rules if each.get("ID") != name]
        return [*others, ours | rule | actions]

    def _fewest(self, action: str, unit: str) -> int | None:
        found = (rule.get(action, {}).get(unit) for rule in self._for_all())
        return min((int(days) for days in found if days is not None), default=None)

    def _for_all(self) -> list[dict[str, Any]]:
        return [
            rule
            for rule in self.rules
            if rule.get("Status") == "Enabled"
            and not set(rule.get("Filter", {})) - {"Prefix"}
            and self._prefix.startswith(_prefix(rule))
        ]

    def _for_any(self) -> list[dict[str, Any]]:
        return [
            rule
            for rule in self.rules
            if rule.get("Status") == "Enabled"
            and not _wants_tags(rule)  # no object of streamq has tags
            and (self._prefix.startswith(_prefix(rule)) or _prefix(rule).startswith(self._prefix))
        ]


def _prefix(rule: dict[str, Any]) -> str:
    narrowed = rule.get("Filter", {})
    both = narrowed.get("And", {}).get("Prefix")
    return str(narrowed.get("Prefix") or both or rule.get("Prefix") or "")


def _wants_tags(rule: dict[str, Any]) -> bool:
    narrowed = rule.get("Filter", {})
    return bool(narrowed.get("Tag") or narrowed.get("And", {}).get("Tags"))
