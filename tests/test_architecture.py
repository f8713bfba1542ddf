"""The house: who imports whom, what `import preshield` loads, where things stand."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import preshield
from preshield import Preprocessor
from preshield._core.variant import Variant
from tests.cases import CASES

SOURCE = Path(preshield.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
NAMESPACE = "the namespace"

# Each room, and the rooms that it may import. `_core` is open to all, a room to itself; exceptions are below.
MAY_IMPORT = {
    "_core": set(),
    "frameworks": set(),
    "preprocessor": {"frameworks"},
    "composite": {"preprocessor", "interop"},
    "chain": {"composite"},
    "random_stages": {"composite", "preprocessor"},
    "random_apply": {"random_stages", "preprocessor"},
    "barrage_of_transforms": {"random_stages"},
    "codecs": set(),
    "neural": set(),
    "defences": {"preprocessor", "codecs", "neural"},
    "evaluation": {"preprocessor", "chain", "interop", "neural", "plots"},
    "files": {"codecs"},
    "labelled_pictures": {"neural"},
    "data_files": {"labelled_pictures", "files", "evaluation", "neural"},
    "majority_vote": {"preprocessor", "chain", "interop", "defences", "evaluation"},
    "randomized_smoothing": {"preprocessor", "chain", "interop", "defences", "evaluation", "neural"},
    "squeeze_detector": {"preprocessor", "evaluation"},
    "plots": set(),
    "variants": {"defences"},
    "interop": {"preprocessor", NAMESPACE},  # Keras finds the classes of a saved model there
    "testing": {"preprocessor", "chain"},
    "catalogue": {"preprocessor", NAMESPACE},
    "demo": {"preprocessor", "chain", "defences", "neural", "evaluation", "plots", NAMESPACE},
    "cli": {
        "preprocessor",
        "chain",
        "defences",
        "neural",
        "evaluation",
        "plots",
        "files",
        "data_files",
        "demo",
        NAMESPACE,
    },
    "__main__": {"cli"},
    "__init__": {"interop"},
}
HEAVY = ["scipy", "numba", "PIL", "tensorflow", "keras", "torch", "jax", "art", "sklearn", "skimage"]
HEAVY += ["tqdm", "matplotlib", "pywt", "av", "resampy"]


def room(parts):
    """First part of a module's path inside the package."""
    return parts[0].removesuffix(".py") if parts else NAMESPACE


def own_imports(file):
    """Modules of the package that a file imports when it runs, as paths inside the package."""
    return imports_of(file.read_text(encoding="utf-8"), file.relative_to(SOURCE).parts[:-1])


def imports_of(code, package):
    """Modules of the package that code in one of its folders imports when it runs."""
    for node in runtime_nodes(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from (tuple(rest) for first, *rest in names if first == "preshield")
        elif isinstance(node, ast.ImportFrom):
            path = node.module.split(".") if node.module else []
            if node.level:
                path = ["preshield", *package[: len(package) - node.level + 1], *path]
            if path[0] == "preshield":
                yield from {named_in(path[1:], alias.name) for alias in node.names}


def named_in(path, name):
    """What `from path import name` imports: a module of the folder, or something that stands in `path`."""
    place = SOURCE.joinpath(*path, name)
    return (*path, name) if place.is_dir() or place.with_suffix(".py").exists() else tuple(path)


def foreign_imports(file):
    for node in runtime_nodes(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)


def runtime_nodes(tree):
    """All nodes but those under `if TYPE_CHECKING`."""
    for_types = isinstance(tree, ast.If) and ast.unparse(tree.test) in (
        "TYPE_CHECKING",
        "typing.TYPE_CHECKING",
    )
    for node in tree.orelse if for_types else ast.iter_child_nodes(tree):
        yield node
        yield from runtime_nodes(node)


def name_of(file):
    return file.relative_to(SOURCE).as_posix()


IMPORTS = """
import numpy, preshield.chain
from numpy import preprocessor
from preshield import Cutout
from preshield.neural.vae import VariationalAutoencoder
from . import __all__, cutout
from .. import Cutout, files
from .._core.checks import check_number
from .cut_mix import CutMix
if TYPE_CHECKING:
    from ..evaluation import evaluate
elif typing.TYPE_CHECKING:
    import preshield.cli
else:
    from ..plots.images import heading
def inside_a_function():
    if really:
        from ..codecs import h264
"""


def test_imports_are_read():
    """The reader sees relative, absolute and namespace imports, and skips those for type checkers."""
    assert sorted(set(imports_of(IMPORTS, ("defences",)))) == [
        (),
        ("_core", "checks"),
        ("chain",),
        ("codecs", "h264"),
        ("defences",),
        ("defences", "cut_mix"),
        ("defences", "cutout"),
        ("files",),
        ("neural", "vae"),
        ("plots", "images"),
    ]
    assert ("_core", "checks") in set(own_imports(SOURCE / "preprocessor.py"))
    assert () in set(own_imports(SOURCE / "catalogue.py"))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_point_one_way(file):
    own = room(file.relative_to(SOURCE).parts)
    assert own in MAY_IMPORT, f"a new room: say in DESIGN and here what {own} may import"
    for target in own_imports(file):
        allowed = MAY_IMPORT[own] | {own, "_core"}
        assert room(target) in allowed, f"{name_of(file)} imports {'.'.join(target) or NAMESPACE}"


@pytest.mark.parametrize("file", sorted((SOURCE / "defences").glob("*.py")), ids=lambda f: f.stem)
def test_defences_never_import_each_other(file):
    assert not [target for target in own_imports(file) if target[:1] == ("defences",)]


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_only_interop_and_files_for_its_guests_know_art(file):
    place = file.relative_to(SOURCE).parts
    guest = room(place) == "evaluation" and file.name.startswith("art_")
    if room(place) != "interop" and not guest:
        assert "art" not in set(foreign_imports(file))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_for_guests_are_loaded_for_guests_alone(file):
    """Inside functions: what imports one of them at its top needs ART, or a framework, itself."""
    tops = {
        target for node in ast.parse(file.read_text(encoding="utf-8")).body for target in direct(node, file)
    }
    guests = ("art_", "jax_classifier", "tensorflow_classifier", "torch_classifier")
    if not file.name.startswith("art_"):
        assert not [
            target for target in tops if target[:1] == ("evaluation",) and target[-1].startswith(guests)
        ]


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_framework_is_entered_with_its_tensors_alone(file):
    """No file imports what needs torch or the like, but that `dispatch` does so in a function."""
    files = {("frameworks", name) for name in ("torch", "tensorflow", "jax", "dask")}
    if name_of(file) == "frameworks/dispatch.py":
        assert not files & {t for node in ast.parse(file.read_text("utf-8")).body for t in direct(node, file)}
    else:
        assert not files & set(own_imports(file))


def direct(node, file):
    """Modules of the package that a statement at the top of a file imports."""
    if not isinstance(node, ast.Import | ast.ImportFrom):
        return set()
    return set(imports_of(ast.unparse(node), file.relative_to(SOURCE).parts[:-1]))


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_only_the_command_line_prints(file):
    calls = [n for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    prints = [n.lineno for n in calls if getattr(n.func, "id", "") == "print"]
    assert file.name in ("cli.py", "__main__.py") or not prints, f"print in lines {prints}"


def run_python(code):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout


def loaded_by(code):
    modules = run_python(
        f"{code}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    ).split()
    return set(modules)


def test_import_loads_nothing_heavier_than_numpy():
    loaded = loaded_by("import preshield; preshield.__version__; dir(preshield)")
    assert not loaded & set(HEAVY)


def test_classes_load_nothing_heavier_than_numpy():
    code = "import preshield\nfor name in preshield.__all__: getattr(preshield, name)\n"
    code += "preshield.SpatialSmoothing(3), preshield.TotalVarMin(), preshield.JpegCompression((0, 1))\n"
    code += "str(preshield.list_defences())"
    loaded = loaded_by(code)
    assert {"preshield", "numpy"} <= loaded
    assert not loaded & set(HEAVY)


def test_numpy_batches_load_no_framework():
    code = "import numpy, preshield; preshield.SpatialSmoothing(3).transform(numpy.zeros((1, 4, 4, 1)))"
    assert not loaded_by(code) & {"torch", "tensorflow", "jax", "keras", "art", "sklearn", "dask"}


def test_tensors_load_their_own_framework_alone():
    pytest.importorskip("torch")
    code = "import preshield, torch; preshield.SpatialSmoothing(3).transform(torch.zeros(1, 4, 4, 1))"
    assert loaded_by(code) & {"torch", "tensorflow", "jax", "keras", "art", "sklearn"} == {"torch"}


def test_classifiers_load_their_own_framework_alone():
    """A callable is evaluated without any; a torch module without ART, TensorFlow and JAX."""
    code = "import numpy as np\nfrom preshield.evaluation.classifiers import as_classifier\n"
    code += "x = np.zeros((2, 4), np.float32)\nas_classifier(lambda x: x, x)\n"
    frameworks = {"torch", "tensorflow", "jax", "keras", "art", "sklearn"}
    assert not loaded_by(code) & frameworks
    pytest.importorskip("torch")
    code += "import torch\nas_classifier(torch.nn.Linear(4, 3), x)\n"
    assert loaded_by(code) & frameworks == {"torch"}


def test_an_evaluation_does_without_art():
    """Where its import fails, a torch module is attacked: by every column, and by the published suite."""
    pytest.importorskip("torch")
    code = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "art":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import numpy as np
import torch
from preshield import FeatureSqueezing, GaussianAugmentation, MajorityVote, evaluate

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(27, 5))
x = np.random.default_rng(0).random((4, 3, 3, 3), dtype=np.float32)
y = model(torch.from_numpy(x)).argmax(dim=1).numpy()
noise = GaussianAugmentation(0.1, augmentation=False, apply_fit=False, apply_predict=True)
defences = {"bits": FeatureSqueezing((0, 1), 3), "noise": noise, "vote": MajorityVote(model)}
small = {"budget": 3, "eot": 2, "verbose": False}
evaluate(model, x, y, defences, surrogate=model, **small)
evaluate(model, x, y, defences, threat="linf", eps=0.3, surrogate=model, **small)
bound = {"threat": "linf", "eps": 0.3, "columns": ["adaptive"]}
report = evaluate(model, x[:1], y[:1], [], attacks="autoattack", **bound, **small)
str(report), report.to_json(), report.to_markdown()
try:
    evaluate(model, x, y, [noise], attacks=print)
except ImportError as error:
    assert "preshield[art]" in str(error), error
else:
    raise AssertionError("an attack of ART without ART")
assert "art" not in sys.modules
"""
    assert run_python(code) == ""


def test_the_public_call_loads_no_framework():
    frameworks = {"torch", "tensorflow", "jax", "keras", "art", "sklearn", "distributed"}
    assert not loaded_by("import preshield; preshield.evaluate, preshield.RobustnessReport") & frameworks


def test_namespace_is_sorted_and_complete():
    assert preshield.__all__ == sorted(preshield.__all__)
    assert set(preshield.__all__) <= set(dir(preshield))
    stub = (SOURCE / "__init__.pyi").read_text(encoding="utf-8")
    names = re.findall(r"^from \S+ import (\w+) as (\w+)$", stub, flags=re.MULTILINE)
    assert [first for first, _ in names] == [second for _, second in names]
    assert sorted(first for first, _ in names) == preshield.__all__
    lines = [line for line in stub.splitlines() if line.startswith("from")]
    assert lines == sorted(lines)


def test_every_name_exists():
    for name in preshield.__all__:
        value = getattr(preshield, name)
        one_more_name_of = re.fullmatch(f"{value.__name__}(PyTorch|TensorFlow|TensorFlowV2)", name)
        assert value.__name__ == name or one_more_name_of
    with pytest.raises(AttributeError, match="no_such_name"):
        preshield.no_such_name  # noqa: B018


@pytest.mark.parametrize("file", sorted((SOURCE / "defences").glob("[a-z]*.py")), ids=lambda f: f.stem)
def test_a_defence_stands_in_the_file_of_its_name_and_in_the_cases(file):
    classes = [c for c in CASES if c.__module__ == f"preshield.defences.{file.stem}"]
    assert classes, f"no class of {file.name} stands in tests/cases.py"
    assert file.stem in [re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", c.__name__).lower() for c in classes]
    public = {
        node.name
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    assert {c.__name__ for c in classes} <= public


@pytest.mark.parametrize("defence", list(CASES), ids=lambda c: c.__name__)
def test_a_class_is_abstract_or_final(defence):
    *between, base = defence.__mro__[1 : defence.__mro__.index(Preprocessor) + 1]
    assert base is Preprocessor
    # What a pair shares stands in a private base, which cannot be made.
    assert all(shared.__name__.startswith("_") and shared not in CASES for shared in between)
    inside = [c for c in defence.__subclasses__() if c.__module__.startswith("preshield.")]
    assert all(isinstance(name, Variant) for name in inside)  # ART's names for a framework


def test_facts_name_a_paper_and_the_attacks():
    for row in preshield.list_defences():
        assert re.match(r"arXiv:\d{4}\.\d{4,5}|https://|doi:", row.paper), row.name
        assert row.known_attacks, row.name
        assert row.summary.endswith("."), row.name
