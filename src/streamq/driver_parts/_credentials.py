"""Masks credentials in text that goes into messages and logs.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

import re

# After "scheme://" everything up to the last @ belongs to the credentials, since a password may
# contain any character but a space or a quote; a host and its port do not. Without a scheme a
# slash ends them. In both forms several addresses may follow one another after commas.
_CREDENTIALS = re.compile(
    r"""
    (\w+://) (?![^\s/:@]*:\d+/) [^\s/:"@]* : (?:(?!,\w+://) [^\s"])* @
    | (?<![\w.+-]) (?!\w+://) [^\s/,'"@:]* : (?:(?!,[^\s,]*:) [^\s/"])* @
    """,
    re.VERBOSE,
)


def mask_credentials(text: str) -> str:
    """Return text with ``***`` in place of every ``user:password`` before an ``@``."""
    return _CREDENTIALS.sub(lambda found: f"{found[1] or ''}***@", text)
