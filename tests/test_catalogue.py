"""The table of defences."""

import preshield
from preshield import Preprocessor, list_defences
from preshield.catalogue import DefenceFacts, DefenceTable

VARIANTS = ("PyTorch", "TensorFlow", "TensorFlowV2")  # further names of the same classes
NAMES = [
    "FeatureSqueezing",
    "GaussianAugmentation",
    "JpegCompression",
    "LabelSmoothing",
    "SpatialSmoothing",
    "ThermometerEncoding",
    "TotalVarMin",
]


def test_every_public_defence_has_a_row():
    names = [row.name for row in list_defences()]
    assert names == sorted(names)
    assert set(NAMES) <= set(names)
    public = {
        name
        for name, value in ((name, getattr(preshield, name)) for name in preshield.__all__)
        if isinstance(value, type) and issubclass(value, Preprocessor) and not name.endswith(VARIANTS)
    }
    public |= {"MajorityVote", "RandomizedSmoothing", "SqueezeDetector"}  # classifiers that state the facts
    assert set(names) == public - {"BarrageOfTransforms", "Chain", "Preprocessor", "RandomApply"}


def test_facts_are_those_of_the_class():
    for row in list_defences():
        defence = getattr(preshield, row.name)
        for fact in (
            "domains",
            "stochastic",
            "gradient_kind",
            "changes_shape",
            "optimises_at_test_time",
            "paper",
            "known_attacks",
        ):
            assert getattr(row, fact) == getattr(defence, fact), (row.name, fact)


def test_facts_are_complete():
    for row in list_defences():
        assert row.domains
        assert set(row.domains) <= {"image", "video", "audio", "features", "labels"}
        assert row.gradient_kind in {"exact", "identity", "surrogate"}
        assert row.paper.startswith(("arXiv:", "https://")), row.name
        assert row.known_attacks, row.name
        assert row.summary.endswith("."), row.name
        assert "]_" not in row.summary
        assert "\n" not in row.summary


def test_facts_of_the_foundation():
    rows = {row.name: row for row in list_defences()}
    assert {name for name in NAMES if rows[name].stochastic} == {"GaussianAugmentation", "TotalVarMin"}
    assert {name for name in NAMES if rows[name].changes_shape} == {
        "GaussianAugmentation",
        "ThermometerEncoding",
    }
    assert {name for name in NAMES if rows[name].optimises_at_test_time} == {"TotalVarMin"}
    assert rows["ThermometerEncoding"].gradient_kind == "surrogate"
    assert rows["LabelSmoothing"].gradient_kind == "exact"
    assert rows["SpatialSmoothing"].summary == "Replace each pixel by the median of its window."


def test_markdown():
    class Own(Preprocessor):
        """Do one thing [1]_ [2]_.

        More.
        """

        domains = ("image", "audio")
        stochastic = True
        paper = "https://example.org/paper"
        known_attacks = ("one", "two")

    facts = DefenceFacts.of(Own)
    assert facts.summary == "Do one thing."
    table = DefenceTable([facts])
    assert table.to_markdown() == (
        "| defence | domains | stochastic | gradient | paper | known attacks |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| `Own` | image, audio | yes | identity | [paper](https://example.org/paper) | one; two |"
    )
    assert str(table) == (
        "defence  domains       stochastic  gradient  paper\n"
        "Own      image, audio  yes         identity  https://example.org/paper"
    )


def test_arxiv_numbers_become_links():
    markdown = list_defences().to_markdown()
    assert "[arXiv:1704.01155](https://arxiv.org/abs/1704.01155)" in markdown
    assert len(markdown.splitlines()) == len(list_defences()) + 2
    assert len({line.count(" | ") for line in markdown.splitlines()}) == 1
