"""Chooses the headers with which browsers get an object: stored as a file, never run as a page.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from streamq_s3sns.requests._objects import OCTETS

from ._reference import LONGEST_NAME, MEDIA_TYPE

_ACTIVE = re.compile(r".*[/+](x?html|xml|xsl.*|svg|(x-)?(java|ecma)script.*)", re.IGNORECASE)
_UNSAFE_IN_NAMES = frozenset('/\\:*?"<>|%')


def safe_media_type(media_type: str) -> str:
    """Return the media type to send to a browser.

    Types that can contain scripts become plain bytes. Otherwise a producer could run code on the
    bucket's host, or on the host of a proxy in front of it.
    """
    found = MEDIA_TYPE.fullmatch(media_type)
    return OCTETS if found is None or _ACTIVE.fullmatch(found[1]) else media_type


def content_disposition(name: str) -> str:
    """Return the header that makes a browser store an object instead of opening it.

    It does not apply to images, sounds and films that a page embeds: they are shown.
    """
    safe = "".join(
        "_" if character in _UNSAFE_IN_NAMES or not character.isprintable() else character
        for character in name[:LONGEST_NAME]
    ).strip(". ")
    if not safe:
        return "attachment"
    plain = safe.encode("ascii", "replace").decode().replace("?", "_")
    extended = f"; filename*=UTF-8''{quote(safe, safe='')}" if plain != safe else ""
    return f'attachment; filename="{plain}"{extended}'
