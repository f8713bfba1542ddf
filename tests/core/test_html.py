"""HTML: escaping, links, tables."""

import numpy as np
import pytest

from preshield._core.html import Html, links, scoped, short, table, tag, text

HOSTILE = "<script>alert('1')</script> & \"x\""
HARMLESS = "&lt;script&gt;alert(&#x27;1&#x27;)&lt;/script&gt; &amp; &quot;x&quot;"


def test_text_is_escaped_once():
    assert text(HOSTILE) == HARMLESS
    assert text(text(HOSTILE)) == HARMLESS
    assert text(3) == "3"


def test_tag_escapes_content_and_attributes():
    assert tag("p", HOSTILE, title=HOSTILE) == f'<p title="{HARMLESS}">{HARMLESS}</p>'
    assert tag("p", tag("b", "x"), Html("<i>y</i>")) == "<p><b>x</b><i>y</i></p>"


def test_attributes():
    assert tag("img", src="a", alt="") == '<img src="a" alt="">'
    assert tag("details", open=True, id=None, hidden=False) == "<details open></details>"
    assert tag("div", class_="a", aria_label="b", tabindex=0) == (
        '<div class="a" aria-label="b" tabindex="0"></div>'
    )


@pytest.mark.parametrize(
    ("paper", "address"),
    [
        ("arXiv:1704.01155", "https://arxiv.org/abs/1704.01155"),
        ("arXiv:cs/0112017", "https://arxiv.org/abs/cs/0112017"),
        ("doi:10.1000/182", "https://doi.org/10.1000/182"),
        ("https://openreview.net/forum?id=S18Su--CW", "https://openreview.net/forum?id=S18Su--CW"),
    ],
)
def test_papers_become_links(paper, address):
    assert links(paper) == f'<a href="{address}">{paper}</a>'
    assert links(f"Somebody 2018 ({paper}): a & b.") == (
        f'Somebody 2018 (<a href="{address}">{paper}</a>): a &amp; b.'
    )


def test_several_papers():
    assert links("arXiv:1704.01155, arXiv:1711.00117").count("<a ") == 2


@pytest.mark.parametrize(
    "sentence", ["", "NDSS 2018", "javascript:alert(1)", "data:text/html,x", "arXiv:x", HOSTILE]
)
def test_nothing_else_becomes_a_link(sentence):
    assert "<a" not in links(sentence)
    assert links(sentence) == text(sentence)


def test_a_link_cannot_leave_its_attribute():
    assert '" onclick' not in links('https://example.org/"onclick="alert(1)')
    assert "<script" not in links("https://example.org/<script>")


def test_short():
    assert short(np.zeros((32, 32, 3))) == "<array (32, 32, 3) of float64>"
    assert short((np.zeros(100, dtype=np.float32), 1.0)) == "(<array (100,) of float32>, 1.0)"
    assert short(np.array([[0.0], [1.0]])) == "array([[0.], [1.]])"
    assert short((0.0, 1.0)) == "(0.0, 1.0)"
    assert short("soft") == "'soft'"
    assert len(short("x" * 10_000)) <= 120
    assert len(short(list(range(10_000)))) <= 120
    assert "0x" not in short(test_short) + short(np.random.default_rng(0)) + short(object())
    assert "test_short" in short(test_short)


def test_table():
    got = table(("a", "b", "c"), [("x", 1, "<"), ("y", 2, "z")], caption="what", strong=("b",), words=("c",))
    assert '<th scope="col">a</th>' in got
    assert got.count('scope="col"') == 3
    assert '<th scope="row">x</th>' in got
    assert '<td class="ps-strong"><strong>1</strong></td><td class="ps-words">&lt;</td>' in got
    assert "<caption>what</caption>" in got
    assert 'aria-label="what"' in got
    assert "<caption" not in table(("a",), [], label="what")


def test_a_table_refuses_rows_of_another_length():
    with pytest.raises(ValueError, match="zip"):
        table(("a", "b"), [("x", 1, 2)])


def test_one_style_sheet_inside_one_scope():
    got = scoped(tag("p", "x"))
    assert got.startswith('<div class="preshield"><style>')
    assert got.count("<style>") == 1
    rules = got.split("<style>")[1].split("</style>")[0].split("}")
    assert all(
        part.strip().startswith(".preshield")
        for rule in rules
        if rule.strip()
        for part in rule.split("{")[0].split(",")
    )
