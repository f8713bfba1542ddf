"""Models from files, in formats that hold no pickled code."""

import re
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias

from .._core.limits import Limit, opened_archive
from .._core.optional import require
from .._core.writing import written
from .feature_blur import keras_layer

__all__ = ["check_keras_path", "load_model", "model_format", "save_keras"]

Kind: TypeAlias = Literal["exported", "keras", "torchscript"]

_FORMATS: dict[str, Kind] = {
    ".keras": "keras",
    ".pt": "torchscript",
    ".pt2": "exported",
    ".pth": "torchscript",
    ".ts": "torchscript",
}
_ACCEPTED = "a Keras model (.keras), a TorchScript module (.pt, .pth, .ts) or one of torch.export (.pt2)"
_REMEDIES = {
    ".h5": "load it in Keras yourself and save it with `model.save('model.keras')`",
    ".hdf5": "load it in Keras yourself and save it with `model.save('model.keras')`",
    ".safetensors": "it holds weights alone; name their network, such as timm:resnet50, too",
}
_KERAS_TEXTS = {"config.json", "metadata.json"}
_SAFE_KERAS = (3, 14)  # the safe mode of earlier releases can be escaped: CVE-2025-1550, -8747, CVE-2026-1462
_PICKLED = (
    "it is a pickled PyTorch file, and unpickling may run any code; save the module as TorchScript, "
    "with `torch.jit.script(module).save(path)` or `torch.jit.trace(module, example).save(path)`"
)
# The code of a TorchScript module, some of which runs on loading, may call any registered operator. Of those
# of `aten`, there called `torch`, two reach files. What those of an extension do is not known here, and some
# that torch has for debugging reach files too; the namespaces below only compute. `ops` is a reserved word
# and the only way to a namespace, unless it names an attribute.
_FILE_OPERATORS = re.compile(
    rb"""\b(?:from_file|save)\b|(?<![."'])\bops\b(?!\s*:)(?!\.(?:_quantized|aten|mkl|mkldnn|"""
    rb"""mkldnn_prepacked|onednn|prepacked|prim|prims|profiler|quantized|sparse|torchvision)\.)[\w.]*"""
)


def check_keras_path(path: str | Path) -> None:
    """Refuse a file to be written that Keras would not take for its own by the name."""
    if Path(path).suffix != ".keras":
        raise ValueError(f"`path` must end in '.keras', got {str(path)!r}.")


def save_keras(model: Any, path: str | Path) -> None:
    """Write a Keras model to a file, whole or not at all. Keras takes a path and nothing else."""
    with TemporaryDirectory(prefix="preshield-") as folder:
        saved = Path(folder, "model.keras")
        model.save(saved)
        with saved.open("rb") as source, written(Path(path)) as target:
            shutil.copyfileobj(source, target)


def model_format(path: str | Path, limit: Limit | None = None) -> Kind:
    """Tell what kind of model a file holds, without loading it.

    Parameters
    ----------
    path : str or Path
        File of a model.
    limit : Limit, optional
        How much it may hold; by default what the environment says.

    Returns
    -------
    {"exported", "keras", "torchscript"}

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is a folder, its suffix is not one of those accepted, it is truncated or pickled, or it holds
        more than the limit.
    """
    path = Path(path)
    accepted = f"give {_ACCEPTED}"
    if path.is_dir():
        raise ValueError(f"cannot load {str(path)!r}: it is a folder, such as a SavedModel; {accepted}")
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        remedy = f"; {_REMEDIES[suffix]}" if suffix in _REMEDIES else ""
        raise ValueError(f"cannot load {str(path)!r}: {accepted}{remedy}")
    kind = _FORMATS[suffix]
    path.stat()  # is_zipfile() would say no to a missing file
    try:
        problem = _PROBLEMS[kind](path, Limit.given(limit))
    except Exception as error:
        raise ValueError(f"cannot load {str(path)!r}: {error}") from error
    if problem:
        raise ValueError(f"cannot load {str(path)!r}: {problem}")
    return kind


def load_model(path: str | Path, limit: Limit | None = None) -> Any:
    """Load a model without running pickled code.

    Parameters
    ----------
    path : str or Path
        A ``.keras`` file; a TorchScript file: ``.pt``, ``.pth`` or ``.ts``; a ``.pt2`` file of
        `torch.export.save`.
    limit : Limit, optional
        How much it may hold; by default what the environment says.

    Returns
    -------
    keras.Model or torch.nn.Module
        For prediction: the Keras model is not compiled; the module is on the CPU, in evaluation mode.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is of another kind, is damaged, holds more than the limit, or needs code that is not
        loaded: pickled PyTorch files, Keras files with a ``Lambda`` layer or with an own layer that is not
        registered.
    ImportError
        If the framework is missing, or Keras is older than 3.14, whose safe mode can be escaped.

    Notes
    -----
    Keras files are loaded in safe mode, on whichever backend Keras runs. Of the pickles in a TorchScript file
    torch makes nothing but tensors, numbers and instances of the classes that the file itself defines, in its
    own restricted language. Some of that code runs on loading; a file that names an operator which reads or
    writes files, or one of an extension other than torchvision, is refused. Of a ``.pt2`` file the JSON and
    the raw numbers are read, and operators of `aten` and torchvision are run; its pickle, which holds the
    sample inputs, is not opened. What remains: a model may ask for any amount of time and memory, and for the
    classes of an extension that has been imported.
    """
    kind = model_format(path, limit)
    try:
        return _LOADERS[kind](Path(path))
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(f"cannot load {str(path)!r}: {error}") from error


def _load_keras(path: Path) -> Any:
    keras = require("keras", extra="tensorflow")
    if tuple(map(int, keras.__version__.split(".")[:2])) < _SAFE_KERAS:
        raise ImportError(
            f"The safe mode of Keras {keras.__version__} can be escaped by the file that it loads: "
            'pip install "keras>=3.14".'
        )
    keras_layer()  # registered, for models that BlurNet.insert made
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except ValueError as error:
        if "safe_mode" not in str(error):
            raise
        raise ValueError(
            "it holds a Lambda layer, whose code would have to be run; write that layer with Keras's own "
            "layers, or save the model without it"
        ) from error


def _load_torchscript(path: Path) -> Any:
    torch = require("torch", extra="torch")
    with warnings.catch_warnings():
        # torch recommends torch.export, which is not always possible.
        warnings.filterwarnings("ignore", "`torch.jit.load` is", DeprecationWarning)
        module = torch.jit.load(path, map_location="cpu")
    return module.eval()


def _load_exported(path: Path) -> Any:
    require("torch", extra="torch")
    from .exported_program import load_exported

    return load_exported(path)


def _problem_of_keras(path: Path, limit: Limit) -> str:
    if not zipfile.is_zipfile(path):
        return "it is truncated, or not in the Keras format"
    with opened_archive(path) as archive:
        missing = _KERAS_TEXTS - set(archive.namelist())
        if missing:
            return f"it is not in the Keras format: it has no {', '.join(sorted(missing))}"
        _check_size(archive, path, limit)
        limit.check_texts(archive, _KERAS_TEXTS)
    return ""


def _problem_of_torchscript(path: Path, limit: Limit) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if not start.startswith(b"PK"):  # torch goes by the start of a file, zipfile by its end: ask both
        return _PICKLED if start.startswith(b"\x80") else "it is not in the TorchScript format"
    if not zipfile.is_zipfile(path):
        return "it is truncated"
    with opened_archive(path) as archive:
        _check_size(archive, path, limit)
        # All entries lie in one folder of any name, and torch ignores case.
        names = {name.lower().partition("/")[2] for name in archive.namelist()}
        code = [entry for entry in archive.infolist() if entry.filename.lower().endswith(".py")]
        if "model.json" in names:
            return "it is in the TorchScript format of torch before 1.2; save it again with a current torch"
        if not code or "constants.pkl" not in names:
            return _PICKLED if "data.pkl" in names else "it is not in the TorchScript format"
        limit.check_texts(archive, [entry.filename for entry in code])
        for entry in code:
            if found := _FILE_OPERATORS.search(archive.read(entry)):
                name = found[0].decode()
                return f"its code names `{name}`, which may reach files; save a module that only computes"
    return ""


def _problem_of_exported(path: Path, limit: Limit) -> str:
    if not zipfile.is_zipfile(path):
        return "it is truncated, or not in the format of torch.export.save"
    with opened_archive(path) as archive:
        _check_size(archive, path, limit)
        names = {name.partition("/")[2]: name for name in archive.namelist()}
        if any(name.startswith("data/aotinductor/") for name in names):
            return "it holds compiled code; save the program itself, with `torch.export.save(program, path)`"
        if "serialized_exported_program.json" in archive.namelist():
            return "its weights are a pickle, as torch before 2.9 wrote them; save it with a current torch"
        if "models/model.json" not in names:
            return "it is not in the format of torch.export.save"
        limit.check_texts(archive, [entry for name, entry in names.items() if name.endswith(".json")])
    return ""


def _check_size(archive: zipfile.ZipFile, path: Path, limit: Limit) -> None:
    limit.check_bytes(sum(entry.file_size for entry in archive.infolist()), path.stat().st_size)


_PROBLEMS: dict[Kind, Callable[[Path, Limit], str]] = {
    "exported": _problem_of_exported,
    "keras": _problem_of_keras,
    "torchscript": _problem_of_torchscript,
}
_LOADERS: dict[Kind, Callable[[Path], Any]] = {
    "exported": _load_exported,
    "keras": _load_keras,
    "torchscript": _load_torchscript,
}
