"""Text of any origin is escaped before a terminal or a log gets it."""

from __future__ import annotations

import pytest

from streamq.driver import TerminalTextStream, terminal_text

HOSTILE = {
    "clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "clipboard, 8-bit": "\x9d52;c;cm0gLXJmIC8=\x9c",
    "title": "\x1b]0;owned\x1b\\",
    "link": "\x1b]8;;http://evil.example\x1b\\x\x1b]8;;\x1b\\",
    "clear": "\x1b[2J\x1b[H",
    "clear, 8-bit": "\x9b2J",
    "cursor": "\x1b[10A",
    "erase": "\x1b[K",
    "reset": "\x1bc",
    "alternate screen": "\x1b[?1049h",
    "mouse": "\x1b[?1000h",
    "paste": "\x1b[201~",
    "answer": "\x1b[6n\x1b[c\x1b[>q",
    "report title": "\x1b[21t",
    "device control": '\x1bP$q"p\x1b\\',
    "private message": "\x1b^secret\x1b\\",
    "program command": "\x1b_Ga=T;AAAA\x1b\\",
    "notification": "\x1b]9;hello\x07",
    "file of iTerm": "\x1b]1337;File=:AAAA\x07",
    "colours of the palette": "\x1b]4;0;#ffffff\x07",
    "scroll region": "\x1b[1;2r",
    "keyboard": "\x1b[>4;2m",
    "characters": "\x1b(0\x0e",
    "bell": "\x07",
    "backspace": "good\x08\x08\x08\x08evil",
    "delete": "\x7f",
    "null": "\x00",
    "form feed": "\x0c\x0b",
    "next line": "\x85\x84",
    "cancel": "\x1b[31\x18m",
    "override": "\u202egnp.exe\u202c",
    "isolate": "\u2066admin\u2069",
    "mark": "\u200f\u200e\u061c",
    "separators": "\u2028\u2029",
    "surrogate": "\ud83d",
    "annotation": "\ufff9a\ufffab\ufffb",
    "deprecated": "\u206a\u206f",
    "colour that never ends": "\x1b[" + "1;" * 500,
    "colour with a colon too many": "\x1b[38:5:1" + ":" * 100 + "m",
    "escape in an escape": "\x1b\x1b[2J",
}


def executes(text: str) -> bool:
    """Whether a terminal would do anything with a text but show it."""
    return any(not c.isprintable() and c not in "\n\t\u200d\u200c" for c in text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_executes(text: str) -> None:
    """A chunk of a model, or the text of an exception, must not write somebody's clipboard."""
    stream = TerminalTextStream()
    data = f"a{text}z".encode("utf-8", "surrogatepass")
    in_pieces = "".join(stream.feed(data[i : i + 1]) for i in range(len(data))) + stream.end()
    assert executes(text)
    assert not executes(terminal_text(text))
    assert not executes(terminal_text(text, keeps_colours=True))
    assert not executes(terminal_text(text, keeps_lines=False))
    assert not executes(in_pieces)
    assert (in_pieces[0], in_pieces[-1]) == ("a", "z")


def test_what_is_no_sequence_stays_as_it_is() -> None:
    """Text of every language, emoji that are joined, tables and ends of lines are no attack."""
    text = "naïve 漢字 शब्द \u200dfamily 👨\u200d👩\u200d👧 مرحبا\tx\n\r\n│─┼ "
    assert terminal_text(text) == text
    stream = TerminalTextStream()
    data = text.encode()
    assert "".join(stream.feed(data[i : i + 1]) for i in range(len(data))) + stream.end() == text


def test_colours_pass_and_end() -> None:
    """The log of a build keeps its colours, and does not colour the prompt that follows."""
    red = "\x1b[1;31mred\x1b[0m \x1b[38;5;9mother\x1b[m"
    assert terminal_text(red, keeps_colours=True) == red
    assert terminal_text("\x1b[31mred", keeps_colours=True) == "\x1b[31mred\x1b[0m"
    assert terminal_text("\x1b[31mred") == "\\x1b[31mred"
    stream = TerminalTextStream()
    pieces = [stream.feed(each) for each in (b"\x1b", b"[3", b"1mred", b"\xff")]
    assert "".join(pieces) == "\x1b[31mred\\xff"
    assert stream.end() == "\x1b[0m"


def test_progress_over_one_line_gets_lines() -> None:
    """What a program draws over the same line could otherwise hide what stood there."""
    assert terminal_text("10%\r20%\r\n") == "10%\n20%\r\n"
    assert terminal_text("one\ttwo\r\nthree", keeps_lines=False) == "one two three"
