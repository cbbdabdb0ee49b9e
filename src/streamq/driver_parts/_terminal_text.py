r"""Escapes text for terminals and logs: text, newlines, tabs and colours pass, nothing else does.

Text of a stream, of an exception or of a server may contain sequences that a terminal executes: it
can set the clipboard or the title, clear the screen, answer on the keyboard, or reverse what is
read. Everything that is shown passes one of these:

* :func:`terminal_text` for a whole text (``keeps_lines=False`` for a notice, an error, a log line);
* :class:`TerminalTextStream` for text that arrives in pieces, which may cut a sequence in two.

Escaped are control characters of seven and of eight bits, marks and overrides of the direction of
writing, separators of lines and paragraphs, and halves of surrogate pairs: ``\x1b``, ``\x9b``,
``\u202e``. Every other character passes, wide ones and joiners of emoji, too. Secrets are masked
before that (``_credentials``).

Design: docs/design/command-line.md.
"""

from __future__ import annotations

import codecs
import re

# Control characters of seven and eight bits; marks, embeddings, overrides and isolates of the
# direction; line and paragraph separators; deprecated format characters; interlinear annotations;
# surrogates.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb"
    "\ud800-\udfff]"
)
_COLOUR = re.compile("\x1b\\[[0-9;:]{0,60}m")
_COLOUR_OR_UNSAFE = re.compile(f"({_COLOUR.pattern})|\r\n|{_UNSAFE.pattern}")
_BEGUN = re.compile("(?:\x1b(?:\\[[0-9;:]{0,60})?|\r)\\Z")  # may become a colour, or an end of line
_RESET = "\x1b[0m"
_ENDS_COLOURS = re.compile("\x1b\\[(?:0*|[0-9;:]*;0*)m")


def terminal_text(text: str, *, keeps_lines: bool = True, keeps_colours: bool = False) -> str:
    """Return text that a terminal shows and never executes.

    Args:
        text: Text of any origin.
        keeps_lines: Whether newlines and tabs pass; otherwise each run of white space becomes one
            blank, so that the text is one line.
        keeps_colours: Whether colours (SGR sequences) pass. What is left on at the end is turned
            off.
    """
    if not keeps_lines:
        text = " ".join(text.split())
    if _UNSAFE.search(text) is None:
        return text
    shown = _COLOUR_OR_UNSAFE.sub(_replaced if keeps_colours else _escaped, text)
    return shown + _RESET if keeps_colours and _leaves_colour(shown, False) else shown


class TerminalTextStream:
    """Escapes text that arrives in pieces for a terminal; bytes are taken as UTF-8.

    A colour, a line ending or a character that a piece cuts in two is held back until the next one;
    that is at most some sixty bytes. Bytes that are not UTF-8 are shown as ``\\x..``.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""
        self._is_coloured = False

    def feed(self, data: bytes | str) -> str:
        """Return what may be shown after the next piece."""
        text = self._held + (data if isinstance(data, str) else self._decoder.decode(data))
        begun = _BEGUN.search(text)
        self._held = "" if begun is None else begun[0]
        return self._shown(text[: len(text) - len(self._held)])

    def end(self) -> str:
        """Return what was held back, and turn off a colour that the text has left on."""
        text = self._held + self._decoder.decode(b"", final=True)
        self._held = ""
        shown = self._shown(text)
        if self._is_coloured:
            self._is_coloured = False
            shown += _RESET
        return shown

    def _shown(self, text: str) -> str:
        if _UNSAFE.search(text) is None:
            return text
        shown = _COLOUR_OR_UNSAFE.sub(_replaced, text)
        self._is_coloured = _leaves_colour(shown, self._is_coloured)
        return shown


def _replaced(found: re.Match[str]) -> str:
    return found[1] if found[1] else _escaped(found)


def _escaped(found: re.Match[str]) -> str:
    if found[0] == "\r\n":
        return found[0]
    if found[0] == "\r":
        return "\n"  # programs draw progress over the same line; each drawing gets a line here
    return "".join(
        char
        if _UNSAFE.match(char) is None
        else f"\\x{ord(char):02x}"
        if ord(char) < 0x100
        else f"\\u{ord(char):04x}"
        for char in found[0]
    )


def _leaves_colour(text: str, before: bool) -> bool:
    colours = _COLOUR.findall(text)
    return _ENDS_COLOURS.fullmatch(colours[-1]) is None if colours else before
