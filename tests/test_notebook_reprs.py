"""What a notebook shows of defences, chains and the table of defences."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    Preprocessor,
    SpatialSmoothing,
    TotalVarMin,
    list_defences,
)
from tests.cases import ALL

UNIT = (0.0, 1.0)


class Nesting(HTMLParser):
    """Fails at an end tag that closes another element."""

    def __init__(self):
        super().__init__()
        self.open, self.words = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)


def words(html):
    """The text of well-nested HTML."""
    parser = Nesting()
    parser.feed(html)
    parser.close()
    assert not parser.open
    return " ".join("|".join(parser.words).split())


class Hostile(Preprocessor):
    """A defence whose texts are HTML."""

    paper = "<b>nowhere</b>"
    known_attacks = ("<img src=x onerror=alert(1)>",)

    def __init__(self, value="<script>alert(1)</script>"):
        self.value = value


@pytest.mark.parametrize("case", ALL, ids=str)
def test_every_case_has_a_card(case):
    defence = case.make()
    shown = words(defence._repr_html_())
    assert case.defence.__name__ in shown
    assert all(f"{name}=" in shown for name in defence.get_params() if name != "defences")


def test_card():
    shown = JpegCompression(UNIT, quality=20)._repr_html_()
    text = words(shown)
    for fact in ("JpegCompression", "image, video", "gradient: identity", "deterministic", "2 known attacks"):
        assert fact in text
    assert "stochastic" not in text
    assert '<a href="https://arxiv.org/abs/1608.00853">arXiv:1608.00853</a>' in shown
    assert "<details><summary>" in shown  # folded


def test_card_of_a_stochastic_defence_that_optimises():
    text = words(TotalVarMin()._repr_html_())
    assert "stochastic" in text
    assert "optimises at test time" in text


def test_changed_parameters_are_emphasised():
    shown = JpegCompression(UNIT, quality=20)._repr_html_()
    items = re.findall(r"<li( class=\"ps-changed\")?><code[^>]*>(\w+)=", shown)
    assert {name for mark, name in items if mark} == {"clip_values", "quality"}
    assert [name for _, name in items] == list(JpegCompression.params)


def test_parameters_are_abbreviated():
    squeezing = FeatureSqueezing((np.zeros((32, 32, 3)), np.ones((32, 32, 3))), 4)
    assert "&lt;array (32, 32, 3) of float64&gt;" in squeezing._repr_html_()
    assert len(squeezing._repr_html_()) < len(JpegCompression(UNIT)._repr_html_()) + 1000


def test_everything_is_escaped():
    shown = Hostile("<script>alert(2)</script>")._repr_html_() + Chain([Hostile()])._repr_html_()
    assert "<script" not in shown
    assert "<img" not in shown
    assert "<b>" not in shown
    assert "value='<script>alert(2)</script>'" in words(shown)


def test_stages_of_a_chain_in_order():
    chain = Chain(
        [SpatialSmoothing(5), JpegCompression(UNIT, quality=20), GaussianAugmentation(augmentation=False)],
        apply_fit=True,
    )
    shown = chain._repr_html_()
    names = re.findall(r'class="ps-name"[^>]*>(\w+)<', shown)
    assert names == ["Chain", "SpatialSmoothing", "JpegCompression", "GaussianAugmentation"]
    assert shown.count("<style>") == 1
    stages = shown[shown.index("<ol") : shown.index("</ol>")]
    assert stages.count("<li><div") == 3
    assert "window_size=5" in words(shown)
    assert "defences=" not in words(shown)  # the cards stand for it
    assert '<li class="ps-changed"><code class="ps-code">apply_fit=True' in shown


def test_a_chain_in_a_chain():
    inner = Chain([SpatialSmoothing(3), FeatureSqueezing(UNIT, 3)])
    shown = Chain((JpegCompression(UNIT), inner))._repr_html_()
    names = re.findall(r'class="ps-name"[^>]*>(\w+)<', shown)
    assert names == ["Chain", "JpegCompression", "Chain", "SpatialSmoothing", "FeatureSqueezing"]
    words(shown)


def test_an_empty_tuple_as_a_parameter_is_shown():
    assert "value=()" in words(Hostile(())._repr_html_())


def test_table_of_defences():
    shown = list_defences()._repr_html_()
    text = words(shown)
    assert all(row.name in text for row in list_defences())
    assert shown.count('scope="row"') == len(list_defences())
    assert "https://arxiv.org/abs/1704.01155" in shown


def test_cards_load_nothing_heavier_than_numpy():
    code = (
        "import sys, preshield\n"
        "assert 'preshield._core.html' not in sys.modules\n"
        "preshield.SpatialSmoothing(3)._repr_html_()\n"
        "sys.exit(bool({'matplotlib', 'numba', 'IPython', 'tqdm'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
