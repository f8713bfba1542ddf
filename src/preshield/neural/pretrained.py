"""Pretrained classifiers of images by their name, with what they do to a picture before they classify it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from errno import ENOENT
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from .._core.errors import ArgumentError
from .._core.limits import Limit
from .._core.optional import require
from .._core.text import MOST, printable
from .._core.typing import Array
from .imagenet import SIDE, efficientnet_lite0, imagenet_classes, imagenet_picture
from .preprocessing import Preprocessing, split

__all__ = ["PretrainedModel", "is_named", "load_pretrained"]

PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth", ".tar")
CACHE = "a copy of the cache of Hugging Face, with the environment variable HF_HUB_OFFLINE=1"
TORCH_CACHE = "a copy of torch's cache, with the environment variable TORCH_HOME"
PORTED = ("googlenet", "inception_v3")
FORMS = "timm:NAME, torchvision:NAME, hf:NAME, hf:FOLDER or efficientnet-lite0"


@dataclass(frozen=True, eq=False)
class PretrainedModel:
    """A classifier of images, and how a picture becomes a sample of it.

    Attributes
    ----------
    model : torch.nn.Module
        Maps pixels `(N, 3, H, W)` in [0, 1] to scores `(N, K)`: the normalisation is part of it.
    geometry : callable
        Maps a picture, an image of Pillow, to pixels, `float32` `(3, H, W)` in [0, 1]: the resize and the
        crop of the model. A defence comes after it, and before `model`.
    class_names : tuple of str or None
        Names of the K classes, if they are known.
    input_shape : tuple of int
        Shape of a sample.
    name : str
        What it was loaded as.
    """

    model: Any
    geometry: Callable[[Any], Array]
    class_names: tuple[str, ...] | None
    input_shape: tuple[int, ...]
    name: str


def is_named(spec: Any) -> bool:
    """Whether a text names a pretrained model, and not a file."""
    return isinstance(spec, str) and (spec == "efficientnet-lite0" or spec.startswith(_PREFIXES))


def load_pretrained(spec: str, weights: str | Path | None = None) -> PretrainedModel:
    """Load a pretrained classifier of images, ready to be defended and attacked.

    Parameters
    ----------
    spec : str
        "timm:resnet50", "torchvision:resnet50", "hf:google/vit-base-patch16-224", "hf:/path/of/a/folder" as
        `save_pretrained` writes it, or "efficientnet-lite0", whose weights come in a package.
    weights : path or str, optional
        A `.safetensors` file with the state of such a network, which may have another number of classes. For
        torchvision also the name of weights, such as "IMAGENET1K_V1". By default those that the library
        itself takes for the best, which it downloads, or finds in its cache.

    Returns
    -------
    PretrainedModel
        On the CPU, in evaluation mode.

    Raises
    ------
    TypeError, ValueError
        If there is no such model, its weights cannot be had, the file does not fit it or is a pickle, or its
        transform cannot be split.
    ImportError
        If its library is missing; it names the extra.

    Notes
    -----
    Nothing is downloaded but by the library that the name begins with. Without a network pass `weights`, or
    fill the cache beforehand and set the environment variable `HF_HUB_OFFLINE=1`. No code from a hub is run.

    Examples
    --------
    >>> from preshield import evaluate, load_pretrained
    >>> pretrained = load_pretrained("timm:resnet50")  # doctest: +SKIP
    >>> pretrained.input_shape  # doctest: +SKIP
    (3, 224, 224)
    >>> report = evaluate(pretrained, pictures, labels)  # doctest: +SKIP
    """
    source, _, name = str(spec).partition(":")
    if source == "efficientnet-lite0" and not name:
        if weights is not None:
            raise ArgumentError(
                f"`weights` must be left out for {spec!r}, which has its own, got {weights!r}."
            )
        names = tuple(name for _, name in imagenet_classes())
        return PretrainedModel(efficientnet_lite0(), imagenet_picture, names, (3, SIDE, SIDE), spec)
    if source not in _SOURCES or not name:
        raise ArgumentError(f"`spec` must be one of {FORMS}, got {spec!r}.")
    require("torch", extra="torch")
    model, preprocessing, names = _SOURCES[source](name, _checked(weights, source))
    return _assembled(model, preprocessing, names, spec)


def _assembled(model: Any, preprocessing: Preprocessing, names: Any, spec: str) -> PretrainedModel:
    """A model that normalises, in evaluation mode, and the size of its samples."""
    from .normalised_module import NormalisedModule

    geometry = preprocessing.geometry
    if geometry is None:
        raise ArgumentError(f"`spec` must name a model that resizes pictures itself, got {spec!r}.")
    shapes = geometry.sizes
    if len(shapes) > 1:
        raise ArgumentError(
            f"`spec` must name a model of pictures of one size, and {spec!r} keeps their proportions; "
            "load it in its library, and pass it to `evaluate` with arrays of one size."
        )
    if preprocessing.normalise is not None:
        model = NormalisedModule(model, preprocessing.normalise)
    for parameter in model.parameters():
        parameter.requires_grad_(False)  # or each attack would keep what their gradients need
    return PretrainedModel(
        model.eval(), geometry, None if names is None else tuple(names), shapes.pop(), spec
    )


def _checked(weights: Any, source: str) -> Any:
    """Weights: the path of a file without pickles, a name of torchvision's, or None."""
    if weights is None:
        return None
    if not isinstance(weights, str | Path):
        raise ArgumentError(f"`weights` must be the path of a .safetensors file, got {weights!r}.")
    path = Path(weights)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise FileNotFoundError(ENOENT, "No such file of weights", str(path))
        size = path.stat().st_size
        Limit.given().check_bytes(size, size)
        return path
    if path.suffix.lower() in PICKLES:
        converted = path.with_suffix(".safetensors").name
        raise ArgumentError(
            f"`weights` must be a .safetensors file, got {path.name!r}, a pickle, and unpickling may run any "
            'code; convert it: python -c "import torch; from safetensors.torch import save_file; '
            f"save_file({{k: v.clone().contiguous() for k, v in torch.load('{path.name}', weights_only=True)"
            f".items()}}, '{converted}')\"."
        )
    if source == "torchvision" and isinstance(weights, str):
        return weights
    raise ArgumentError(f"`weights` must be the path of a .safetensors file, got {str(weights)!r}.")


def _from_timm(name: str, weights: Path | None) -> tuple[Any, Preprocessing, Any]:
    timm = _library("timm")
    if ":" not in name and not timm.is_model(name):  # and not one of a hub by its own name
        _refuse_unknown("timm", name, timm.list_models())
    if weights is None:
        with _offline_way("timm", name):
            model = timm.create_model(name, pretrained=True)
    else:
        model, _ = _filled(lambda **given: timm.create_model(name, pretrained=False, **given), weights)
    data = _library("timm.data")
    transform = data.create_transform(**data.resolve_model_data_config(model))
    names, subset = None, data.infer_imagenet_subset(model)
    if subset is not None:
        names = data.ImageNetInfo(subset).label_descriptions()
    return model, split(transform), names


def _from_torchvision(name: str, weights: Any) -> tuple[Any, Preprocessing, Any]:
    models = _library("torchvision.models")
    known = models.list_models(module=models)
    if name not in known:
        _refuse_unknown("torchvision", name, known)
    choices = models.get_model_weights(name)
    of_name = weights if isinstance(weights, str) else "DEFAULT"
    if of_name not in choices.__members__:
        raise ArgumentError(
            f"`weights` must be a .safetensors file or one of {', '.join(choices.__members__)} for {name!r}, "
            f"got {weights!r}."
        )
    chosen, other = choices[of_name], False
    if isinstance(weights, Path):
        # What the library sets with weights of its own: theirs expect another normalisation.
        ported = {"transform_input": True, "init_weights": False} if name in PORTED else {}
        model, other = _filled(
            lambda **given: models.get_model(name, weights=None, **ported, **given), weights
        )
    else:
        with _offline_way("torchvision", name):
            model = models.get_model(name, weights=chosen)
    return model, split(chosen.transforms()), None if other else chosen.meta["categories"]


def _from_hub(name: str, weights: Path | None) -> tuple[Any, Preprocessing, Any]:
    if find_spec("torchvision") is not None:  # which transformers then needs
        _library("torchvision")
    transformers = _library("transformers")
    network = transformers.AutoModelForImageClassification
    with _offline_way("hf", name):
        processor = transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        if weights is None:
            model = network.from_pretrained(name, use_safetensors=True, trust_remote_code=False)
        else:
            config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
    if weights is not None:

        def make(num_classes: int | None = None) -> Any:
            if num_classes is not None:
                config.num_labels = num_classes
            return network.from_config(config)

        model, _ = _filled(make, weights)
    names = [str(model.config.id2label[i]) for i in range(model.config.num_labels)]
    unnamed = all(label == f"LABEL_{i}" for i, label in enumerate(names))
    return model, split(processor), None if unnamed else names


def _filled(make: Callable[..., Any], weights: Path) -> tuple[Any, bool]:
    """A network with the state of a file, and whether it has another number of classes than by default."""
    load_file = require("safetensors.torch", extra="pretrained").load_file
    try:
        state = load_file(weights)
    except Exception as error:
        raise ArgumentError(
            f"`weights` must be a .safetensors file, got {str(weights)!r}: {error}."
        ) from error
    model = make()
    heads = {len(state[name]) for name in _differing(model, state) if state[name].ndim}
    if len(heads) == 1:  # all that differs is about as many classes
        model = make(num_classes=heads.pop())
    own = {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
    problems = {
        "lacks": sorted(own - state.keys()),
        "has also": sorted(state.keys() - model.state_dict().keys()),
        "has in other shapes": _differing(model, state),
    }
    faults = [f"{what} {len(some)} tensors, such as {some[0]!r}" for what, some in problems.items() if some]
    if faults:
        raise ArgumentError(
            f"`weights` must hold the state of a {type(model).__name__}, and {weights.name!r} "
            f"{' and '.join(faults)}; name the network that was saved."
        )
    model.load_state_dict(state, strict=False)
    return model, bool(heads)


def _differing(model: Any, state: Mapping[str, Any]) -> list[str]:
    own = model.state_dict()
    return [name for name, tensor in state.items() if name in own and tensor.shape != own[name].shape]


def _refuse_unknown(source: str, name: str, known: list[str]) -> NoReturn:
    near = get_close_matches(name, known, n=3)
    meant = f"; did you mean {' or '.join(f'{source}:{other}' for other in near)}?" if near else "."
    raise ArgumentError(f"`spec` must name a model of {source}, got {f'{source}:{name}'!r}{meant}")


@contextmanager
def _offline_way(source: str, name: str) -> Iterator[None]:
    """Say what to do where weights can be had neither from the network nor from a cache."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        reason = printable(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", MOST)
        ways = {
            "hf": f"hf:FOLDER of a model that `save_pretrained` wrote, or {CACHE}",
            "timm": f'weights="FILE.safetensors" (--weights FILE.safetensors), or {CACHE}',
            "torchvision": f'weights="FILE.safetensors" (--weights FILE.safetensors), or {TORCH_CACHE}',
        }
        raise ArgumentError(
            f"`spec` must name a model that is in the cache or can be downloaded, got {f'{source}:{name}'!r} "
            f"({reason}); without a network use {ways[source]}."
        ) from error


def _library(module: str) -> Any:
    """A library that needs torchvision, whose operators are compiled for one build of torch."""
    try:
        return require(module, extra="pretrained")
    except RuntimeError as error:
        if "torchvision" not in str(error):
            raise
        raise ImportError(
            f"torchvision does not fit the installed torch ({error}); install both from one index: "
            "pip install --force-reinstall torch torchvision.",
            name="torchvision",
        ) from error


_SOURCES = {"hf": _from_hub, "timm": _from_timm, "torchvision": _from_torchvision}
_PREFIXES = tuple(f"{source}:" for source in _SOURCES)
