"""Models from files; nothing that a file holds may run."""

import io
import json
import pickle
import re
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from preshield._core.limits import Limit
from preshield.neural.model_files import load_model, model_format, save_keras

X = np.random.default_rng(0).random((3, 4), dtype=np.float32)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def touched(tmp_path):
    """The file that a payload would create; it must not be there at the end."""
    path = tmp_path / "touched"
    yield path
    assert not path.exists()


def refused(path, message):
    """Both functions must refuse a file."""
    for function in (model_format, load_model):
        with pytest.raises(ValueError, match=f"cannot load '{re.escape(str(path))}': .*{message}"):
            function(path)


def rezipped(source, target, change):
    """Copy an archive with its entries changed, as a dict from name to content."""
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in change(entries).items():
            archive.writestr(name, content)
    return target


# Files that are not asked


@pytest.mark.parametrize("name", ["model", "model.onnx", "model.pkl", "model.PB"])
def test_other_formats(tmp_path, name):
    (tmp_path / name).touch()
    refused(
        tmp_path / name, r"give a Keras model \(.keras\), a TorchScript .* or one of torch.export \(.pt2\)$"
    )


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("model.h5", r"save it with `model.save\('model.keras'\)`"),
        ("model.hdf5", r"save it with `model.save\('model.keras'\)`"),
        ("model.safetensors", "it holds weights alone; name their network, such as timm:resnet50"),
    ],
)
def test_formats_with_a_remedy(tmp_path, name, remedy):
    refused(tmp_path / name, remedy)


def test_folder(tmp_path):
    refused(tmp_path, "it is a folder, such as a SavedModel; give a Keras model")


@pytest.mark.parametrize("name", ["none.keras", "none.pt"])
def test_missing_file(tmp_path, name):
    for function in (model_format, load_model):
        with pytest.raises(FileNotFoundError, match=name):
            function(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.keras", b"no model", "it is truncated, or not in the Keras format"),
        ("text.pt", b"no model", "it is not in the TorchScript format"),
        ("empty.pt", b"", "it is not in the TorchScript format"),
        ("cut.pt", b"PK\x03\x04", "it is truncated"),
    ],
)
def test_no_archive(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, message)


@pytest.mark.parametrize(
    ("name", "entries", "message"),
    [
        ("other.keras", ["config.json"], "it has no metadata.json"),
        ("other.pt", ["m/text"], "it is not in the TorchScript format"),
        ("weights.pt", ["m/data.pkl", "m/data/0"], "it is a pickled PyTorch file"),
        ("old.pt", ["m/model.json", "m/code/m.py"], "of torch before 1.2; save it again"),
    ],
)
def test_other_archives(tmp_path, name, entries, message):
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        for entry in entries:
            archive.writestr(entry, "")
    refused(tmp_path / name, message)


def test_pickles_are_never_opened(tmp_path, touched):
    """Without torch: in the formats that torch has written since 1.6, before, and long before."""
    pickled = pickle.dumps(Payload(touched), protocol=2)
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    (tmp_path / "legacy.pt").write_bytes(pickled)
    for name in ("zip.pt", "legacy.pt"):
        refused(
            tmp_path / name,
            "pickled PyTorch file, and unpickling may run any code; save the module as TorchScript, "
            r"with `torch.jit.script\(module\).save\(path\)` or `torch.jit.trace",
        )
    with tarfile.open(tmp_path / "tar.pt", "w") as archive:
        entry = tarfile.TarInfo("pickle")
        entry.size = len(pickled)
        archive.addfile(entry, io.BytesIO(pickled))
    refused(tmp_path / "tar.pt", "it is not in the TorchScript format")


# TorchScript


def torch_module():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5), torch.nn.Linear(3, 2))


@pytest.fixture(params=["script", "trace"])
def torchscript(request, tmp_path):
    """A file, and what its model gives for X."""
    module, torch = torch_module(), pytest.importorskip("torch")
    if request.param == "trace":
        module.eval()
    return saved(module, tmp_path / "model.pt", request.param), module.eval()(torch.from_numpy(X))


def saved(module, path, way="script"):
    """Write a TorchScript file."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit
        made = torch.jit.script(module) if way == "script" else torch.jit.trace(module, torch.from_numpy(X))
        made.save(path)
    return path


def test_torchscript(torchscript, tmp_path):
    import torch

    path, expected = torchscript
    for name in ("model.pt", "model.pth", "model.TS"):
        path = path.rename(tmp_path / name)
        assert model_format(path) == "torchscript"
        module = load_model(str(path))
        assert isinstance(module, torch.nn.Module)
        assert not any(part.training for part in module.modules())
        torch.testing.assert_close(module(torch.from_numpy(X)), expected)


def test_torchscript_has_gradients(tmp_path):
    import torch

    x = torch.from_numpy(X).requires_grad_()
    load_model(saved(torch_module(), tmp_path / "model.pt"))(x).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("what", ["module", "state", "payload"])
def test_pickled_torch_files(tmp_path, touched, what, legacy):
    module = torch_module()
    import torch

    content = {"module": module, "state": module.state_dict(), "payload": {"w": Payload(touched)}}[what]
    torch.save(content, tmp_path / "model.pt", _use_new_zipfile_serialization=not legacy)
    refused(tmp_path / "model.pt", "it is a pickled PyTorch file")


def test_torchscript_does_not_unpickle_python(tmp_path, touched):
    """A pickle in the place of the tensors or constants: torch's own reader knows no Python."""
    path = saved(torch_module(), tmp_path / "model.pt")
    for entry in ("data.pkl", "constants.pkl"):
        evil = rezipped(
            path,
            tmp_path / f"{entry}.pt",
            lambda entries, entry=entry: {
                name: pickle.dumps(Payload(touched), 2) if name == f"model/{entry}" else content
                for name, content in entries.items()
            },
        )
        assert model_format(evil) == "torchscript"
        with pytest.raises(ValueError, match="cannot load"):
            load_model(evil)


def test_torchscript_that_writes_files(tmp_path, touched):
    """TorchScript runs `__setstate__` on loading, and has an operator that writes."""
    torch_module()
    import torch

    path = str(touched)

    class Writer(torch.nn.Module):
        def __init__(self, path: str) -> None:
            super().__init__()
            self.path = path

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

        @torch.jit.export
        def __getstate__(self):
            return self.path, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[str, bool]):
            self.path = state[0]
            self.training = state[1]
            torch.save(torch.ones(1), self.path)

    file = saved(Writer(path), tmp_path / "model.pt")
    refused(file, "its code names `save`, which may reach files")
    upper = rezipped(
        file, tmp_path / "upper.pt", lambda entries: {n.replace(".py", ".PY"): c for n, c in entries.items()}
    )
    refused(upper, "its code names `save`")


@pytest.mark.parametrize("name", ["ops.image.read_file", "ops.debugprims.load_tensor", "ops.aten.from_file"])
def test_torchscript_with_operators_of_others(tmp_path, name):
    torch_module()
    import torch

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.ops = torch.nn.Linear(4, 2)  # and `profile_weight` is no file either
            self.profile_weight = torch.nn.Parameter(torch.ones(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.prim.NumToTensor(2) * self.ops(x) * self.profile_weight

    def with_operator(entries):
        return {
            entry: content.replace(b"ops.prim.NumToTensor", name.encode())
            for entry, content in entries.items()
        }

    path = saved(Plain(), tmp_path / "model.pt")
    assert load_model(path)(torch.ones(1, 4)).shape == (1, 2)
    found = "from_file" if name.startswith("ops.aten") else re.escape(name)
    refused(
        rezipped(path, tmp_path / "other.pt", with_operator), f"its code names `{found}`, which may reach"
    )


def test_torchscript_truncated_or_damaged(tmp_path):
    path = saved(torch_module(), tmp_path / "model.pt")
    content = path.read_bytes()
    (tmp_path / "cut.pt").write_bytes(content[: len(content) // 2])
    refused(tmp_path / "cut.pt", "it is truncated")
    (tmp_path / "trailing.pt").write_bytes(b"x" + content)
    refused(tmp_path / "trailing.pt", "it is not in the TorchScript format")
    bare = rezipped(
        path, tmp_path / "bare.pt", lambda entries: {n: c for n, c in entries.items() if "data" not in n}
    )
    with pytest.raises(ValueError, match=r"cannot load '.*bare.pt': "):
        load_model(bare)


# Keras


def keras_model(*layers):
    keras = pytest.importorskip("keras")
    return keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2)])


def kept(model, path):
    """Write a file in the Keras format."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Keras with arrays of frameworks and NumPy 2
        model.save(path)
    return path


def test_keras(tmp_path):
    model = keras_model()
    model.compile(loss="mse")
    kept(model, tmp_path / "model.keras")
    assert model_format(tmp_path / "model.keras") == "keras"
    loaded = load_model(tmp_path / "model.keras")
    assert not loaded.compiled
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the same
        np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))


def test_keras_lambda_layer(tmp_path, touched):
    keras = pytest.importorskip("keras")
    path = str(touched)
    model = keras_model(keras.layers.Lambda(lambda x: x, name="harmless"))
    kept(model, tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"it holds a Lambda layer, .*; write that layer with Keras's own"):
        load_model(tmp_path / "model.keras")

    model = keras_model(keras.layers.Lambda(lambda x: Path(path).touch() or x))
    touched.unlink()  # building a model runs it once
    kept(model, tmp_path / "evil.keras")
    with pytest.raises(ValueError, match="it holds a Lambda layer"):
        load_model(tmp_path / "evil.keras")


def test_keras_layer_of_ones_own(tmp_path):
    keras = pytest.importorskip("keras")

    class Own(keras.layers.Layer):
        def call(self, x):
            return x

    kept(keras_model(Own()), tmp_path / "model.keras")
    with pytest.raises(ValueError, match="Could not locate class 'Own'"):
        load_model(tmp_path / "model.keras")


def test_keras_file_that_names_any_function(tmp_path, touched):
    """A configuration may not call what it names."""

    def change(entries):
        config = json.loads(entries["config.json"])
        config["config"]["layers"][1] = {
            "module": "pathlib",
            "class_name": "Path.touch",
            "config": {"path": str(touched)},
            "registered_name": "Path.touch",
        }
        return entries | {"config.json": json.dumps(config)}

    kept(keras_model(), tmp_path / "model.keras")
    with pytest.raises(ValueError, match="cannot load"):
        load_model(rezipped(tmp_path / "model.keras", tmp_path / "evil.keras", change))


def test_keras_truncated_or_hdf5(tmp_path):
    model = keras_model()
    kept(model, tmp_path / "model.keras")
    content = (tmp_path / "model.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(content[: len(content) // 2])
    refused(tmp_path / "cut.keras", "it is truncated, or not in the Keras format")
    (tmp_path / "h5.keras").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    refused(tmp_path / "h5.keras", "it is truncated, or not in the Keras format")


def test_old_keras_is_refused(tmp_path, monkeypatch):
    keras = pytest.importorskip("keras")
    kept(keras_model(), tmp_path / "model.keras")
    monkeypatch.setattr(keras, "__version__", "3.13.2")
    with pytest.raises(
        ImportError, match=r'safe mode of Keras 3.13.2 can be escaped .* install "keras>=3.14"'
    ):
        load_model(tmp_path / "model.keras")


def test_a_model_that_cannot_be_written_leaves_the_old_file(tmp_path):
    class Model:
        def save(self, path):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device", str(path))

    path = tmp_path / "model.keras"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="No space left"):
        save_keras(Model(), path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("member", ["config.json", "metadata.json"])
def test_a_long_text_in_a_model(tmp_path, member, monkeypatch):
    monkeypatch.setenv("PRESHIELD_MAX_BYTES", "320000")
    for length, refused in ((10_000, False), (10_001, True)):
        with zipfile.ZipFile(tmp_path / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("config.json", "metadata.json"):
                archive.writestr(name, b" " * (length if name == member else 2))
        if refused:
            with pytest.raises(ValueError, match=rf"10001 bytes of text in '{member}'.*MAX_BYTES=320032"):
                model_format(tmp_path / "x.keras")
        else:
            assert model_format(tmp_path / "x.keras") == "keras"


def test_an_archive_that_grows_too_much(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", bytes(1 << 20))
    size = (tmp_path / "x.keras").stat().st_size
    with pytest.raises(ValueError, match=rf"holds 1048580 bytes .* of {size}, and the limit is {4 * size};"):
        model_format(tmp_path / "x.keras", Limit(1, 1000))
