"""Text of any origin is escaped before a terminal or a log gets it."""

from __future__ import annotations

import pytest
from tests.hostile_values import HOSTILE, executes

from streamq.driver import TerminalTextStream, terminal_text


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
