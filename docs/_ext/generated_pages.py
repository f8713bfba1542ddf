"""One page for each defence, from its docstring and its facts; and a copy of the notebooks."""

import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

import preshield
from preshield.catalogue import DefenceFacts

GRADIENTS = {
    "exact": "exact",
    "identity": "identity: the backward pass takes the defence for the identity",
    "surrogate": "surrogate: the derivative of a smooth stand-in",
}


def write_pages(app: Sphinx) -> None:
    docs = Path(app.srcdir)
    for facts in preshield.list_defences():
        write(docs / "defences" / "generated" / f"{facts.name}.rst", page(facts))
    write(docs / "defences" / "generated" / "overview.md", overview())
    for notebook in (docs.parent / "examples").glob("*.ipynb"):
        target = docs / "examples" / "generated" / notebook.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_bytes() != notebook.read_bytes():
            shutil.copyfile(notebook, target)


def overview() -> str:
    """The table of all defences, without the attacks, which need room; in Markdown, to be included."""
    rows = [("defence", "protects", "stochastic", "gradient"), ("---",) * 4]
    for facts in preshield.list_defences():
        name, protects = f"[](generated/{facts.name}.rst)", ", ".join(facts.domains)
        rows.append((name, protects, yes_or_no(facts.stochastic), facts.gradient_kind))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def page(facts: DefenceFacts) -> str:
    cls = getattr(preshield, facts.name)
    rows = {
        "Protects": ", ".join(facts.domains),
        "Stochastic": yes_or_no(facts.stochastic),
        "Gradient, by default": GRADIENTS[facts.gradient_kind],
        "Changes the shape": yes_or_no(facts.changes_shape),
        "Optimises at test time": yes_or_no(facts.optimises_at_test_time),
        "Output": output(cls),
        "Paper": link(facts.paper),
    }
    table = "".join(f"   * - {name}\n     - {value}\n" for name, value in rows.items())
    attacks = "".join(f"- {link(attack)}\n" for attack in facts.known_attacks)
    return f"""\
{facts.name}
{"=" * len(facts.name)}

{facts.summary}

Facts
-----

.. list-table::
   :stub-columns: 1
   :widths: 30 70

{table}
Known attacks
-------------

Who broke it, and how far. An attacker who knows the defence is the one to reckon with.

{attacks}
Reference
---------

{methods(cls)}
.. autoclass:: preshield.{facts.name}
   :no-index-entry:
{members(cls)}"""


def methods(cls: type) -> str:
    if issubclass(cls, preshield.Preprocessor):
        return "The methods are those of every defence: see :doc:`/contract`.\n"
    guides = {preshield.SqueezeDetector: "detection", preshield.RandomizedSmoothing: "randomized_smoothing"}
    guide = guides.get(cls, "majority_vote")
    return f"A classifier with the facts of a defence: see :doc:`/{guide}`.\n"


def members(cls: type) -> str:
    own = [name for name in dir(cls) if callable(getattr(cls, name)) and not name.startswith("_")]
    return "" if issubclass(cls, preshield.Preprocessor) else f"   :members: {', '.join(own)}\n"


def output(cls: type[preshield.Preprocessor]) -> str:
    if not issubclass(cls, preshield.Preprocessor):
        return "booleans" if cls is preshield.SqueezeDetector else "class indices, -1 for a rejected sample"
    if cls.domains == ("labels",):
        return "labels of a floating type; the data pass through"
    if cls.output_dtype is not None:
        return f"``{cls.output_dtype}``"
    if cls.keeps_integers:
        return "the dtype of the input"
    return "floating types are kept, integers become ``float32``"


def yes_or_no(value: bool) -> str:
    return "yes" if value else "no"


def link(text: str) -> str:
    """Identifiers of arXiv as links."""
    text = re.sub(r"arXiv:(\d+\.\d+)", r"`arXiv:\1 <https://arxiv.org/abs/\1>`__", text)
    return re.sub(r"(?<![<\w])(https://(?!arxiv)\S+)", r"`\1 <\1>`__", text)


def write(path: Path, text: str) -> None:
    """Write a page if it has changed, so that an unchanged one is not built again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
