"""Text of unknown origin."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preshield._core.text import in_markdown, printable

# All code points, halves of characters included
ANY = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)


@given(ANY)
def test_printable_is_one_line_that_can_be_encoded(text):
    shown = printable(text)
    shown.encode()
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(character) for character in shown} & {
        "RLO",
        "LRO",
        "RLE",
        "RLI",
        "LRI",
    }


@pytest.mark.parametrize("text", ["plain, ±0.5 × ∞", "Émile 图像 🙂", "a\N{NO-BREAK SPACE}b", r"C:\new"])
def test_what_does_no_harm_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\ud800", r"\ud800"),
        ("\u202e", r"\u202e"),
        ("\0", r"\x00"),
    ],
)
def test_what_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(text, keep="\n") == (text if text == "a\nb" else shown)


def test_a_long_text_loses_its_middle():
    assert printable("a" * 50 + "b" * 50, 10) == "aaaaa ... bbbbb"
    assert printable("a" * 10, 10) == "a" * 10


@given(ANY)
def test_in_markdown_nothing_is_a_tag_a_link_or_a_cell(text):
    """Read backwards: without the escaped characters, none of the marks is left."""
    assert not re.search(r"[<\[\]|]", re.sub(r"\\.", "", in_markdown(text)))
