"""The command line: arguments, files, printing, exit codes."""

import argparse
import ast
import inspect
import io
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import preshield

from ._core.optional import require
from ._core.typing import Array

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process if omitted.

    Returns
    -------
    int
        Exit code: 0, or 2 after an error, which is one line on stderr; 130 after Ctrl-C.
    """
    try:
        arguments = _parser().parse_args(argv)
        arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `preshield list | head`: nobody reads on, not even the final flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - whatever happens, the user sees one line
        print(f"preshield: error: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def _parser() -> _Parser:
    parser = _Parser(prog="preshield", description="Preprocessing defences against adversarial examples.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {preshield.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo",
        help="train a small network on photographs, defend it, attack it, and report",
        description="Train a small network on photographs, defend it, and attack it with and "
        "without knowledge of each defence. Takes a few minutes. Writes a table (Markdown and "
        "JSON) and a contact sheet (PNG); files of an earlier run are replaced.",
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("preshield-demo"),
        metavar="DIR",
        help="folder of the report (default: %(default)s)",
    )
    demo.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="the same seed prints the same table (default: %(default)s)",
    )
    demo.set_defaults(run=_demo)

    listing = commands.add_parser("list", help="list the defences and what is known about them")
    listing.set_defaults(run=_list)

    apply = commands.add_parser(
        "apply",
        help="apply a defence to a file",
        description="Apply a defence to an image (PNG, JPEG) or to an array (.npy; 3-D is one "
        "image, anything else a batch). Images are read as float32 (H, W, C) in [0, 1]; "
        "transparency is passed on untouched, and lost in .npy.",
    )
    apply.add_argument(
        "defence",
        metavar="DEFENCE",
        help="its class name, or the start of it, in any spelling: jpeg",
    )
    apply.add_argument("source", type=Path, metavar="IN", help=f"file to read ({', '.join(_READERS)})")
    apply.add_argument("target", type=Path, metavar="OUT", help=f"file to write ({', '.join(_WRITERS)})")
    apply.add_argument(
        "--param",
        nargs="+",
        action="extend",
        default=[],
        metavar="name=value",
        help="parameters of the defence. clip_values: (0, 1) for images; where a "
        "defence requires it for an array, (0, 255) for uint8 and (0, 1) for floats "
        "within [0, 1]. GaussianAugmentation: augmentation=False",
    )
    apply.add_argument("--seed", type=_seed, metavar="N", help="draw of a stochastic defence")
    apply.add_argument("--force", action="store_true", help="replace OUT if it exists")
    apply.set_defaults(run=_apply)
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 on, got {text!r}")
    return int(text)


def _one_line(error: Exception) -> str:
    """Say what went wrong; the kind of error only where the message alone may not do."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    message = " ".join(str(error).split())
    expected = isinstance(error, ImportError | OSError | TypeError | ValueError)
    return message if expected and message else f"{type(error).__name__}: {message}"


# preshield list


def _list(arguments: argparse.Namespace) -> None:
    print(preshield.list_defences())


# preshield demo


def _demo(arguments: argparse.Namespace) -> None:
    if arguments.out.exists() and not arguments.out.is_dir():
        raise ValueError(f"--out must be a folder, got the file {str(arguments.out)!r}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    for package in ("matplotlib", "skimage", "sklearn"):  # now, rather than minutes later
        require(package, extra="demo")
    with _silent_stderr():
        tensorflow = require("tensorflow", extra="demo")
        tensorflow.config.list_physical_devices()  # looks for a GPU, and complains if there is none
    tensorflow.config.experimental.enable_op_determinism()

    from tqdm import tqdm

    from .demo import run_demo

    with tqdm(total=1.0, bar_format="{desc:<42}{percentage:3.0f}% |{bar}| {elapsed}", disable=None) as bar:

        def progress(label: str, done: float) -> None:
            bar.set_description_str(label, refresh=False)
            bar.update(done - bar.n)

        result = run_demo(seed=arguments.seed, progress=progress)
    arguments.out.mkdir(parents=True, exist_ok=True)
    files = {arguments.out / name: content for name, content in result.files().items()}
    for path, content in files.items():
        _write_atomically(path, content)
    print(result.to_markdown())  # last: whoever reads this may stop reading
    for path in files:
        print(f"Written: {path}")


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Discard what native code writes to stderr while it is loaded."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


# preshield apply


@dataclass(frozen=True, eq=False)
class _Media:
    """The content of a file.

    Attributes
    ----------
    x : ndarray
        A batch.
    single : bool
        Whether the file held one sample, without an axis of samples.
    is_image : bool
        Whether it was an image file.
    clip_values : tuple of float, optional
        The range of the values, if it is known.
    alpha : ndarray of uint8, shape (H, W), optional
        Transparency of an image.
    """

    x: Array
    single: bool
    is_image: bool
    clip_values: tuple[float, float] | None
    alpha: Array | None = None


def _apply(arguments: argparse.Namespace) -> None:
    source, target = arguments.source, arguments.target
    write = _by_suffix(target, _WRITERS, "write")
    _check_target(target, force=arguments.force)
    name = _defence_name(arguments.defence)
    parameters = _parameters(arguments.param)
    media = _read(source)
    defence = _build(name, parameters, media)
    with nullcontext() if arguments.seed is None else defence.frozen(arguments.seed):
        x = defence.transform(media.x)
    clip_values = _range_of(defence) or media.clip_values
    content = write(replace(media, x=x, clip_values=clip_values))
    _check_target(target, force=arguments.force)  # again: the work may have taken a while
    _write_atomically(target, content)


def _defence_name(text: str) -> str:
    """Find a defence by its class name or the start of it, in any spelling."""
    facts = {row.name: row for row in preshield.list_defences()}
    wanted = "".join(filter(str.isalnum, text)).lower()
    exact = [name for name in facts if name.lower() == wanted]
    found = exact or [name for name in facts if wanted and name.lower().startswith(wanted)]
    if len(found) != 1:
        problem = "fits several defences" if found else "is no defence"
        raise ValueError(f"{text!r} {problem}; choose from {', '.join(found or facts)}")
    if facts[found[0]].domains == ("labels",):
        raise ValueError(f"{found[0]} defends labels; a file of images has none")
    return found[0]


def _parameters(pairs: Sequence[str]) -> dict[str, Any]:
    """Read ``name=value``; a value that is no Python literal is a string."""
    parameters = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--param must be name=value, got {pair!r}")
        try:
            parameters[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parameters[name] = value
    return parameters


def _build(name: str, given: dict[str, Any], media: _Media) -> Any:
    """Construct a defence from what the user gave and what the file tells."""
    cls = getattr(preshield, name)
    unknown = [key for key in given if key not in cls.params]
    if unknown:
        raise TypeError(f"{name} has no parameter {unknown[0]!r}; it has {', '.join(cls.params)}")
    if media.is_image and given.get("channels_first"):
        raise ValueError("channels_first=True is for arrays; image files are read as (H, W, C)")
    required = [
        parameter.name
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.default is parameter.empty
    ]
    defaults = {"augmentation": False, "verbose": sys.stderr.isatty()}
    if media.is_image or "clip_values" in required:
        defaults["clip_values"] = media.clip_values
    parameters = {key: value for key, value in defaults.items() if key in cls.params} | given
    if "clip_values" in required and parameters["clip_values"] is None:
        raise ValueError(
            f"{name} needs the range of the values, which is not known for this array of "
            f"{media.x.dtype}; give it as --param 'clip_values=(low, high)'"
        )
    return cls(**parameters)


def _range_of(defence: Any) -> tuple[float, float] | None:
    """Return the clip values of a defence, if it has them and they are the same everywhere."""
    clip_values = getattr(defence, "clip_values", None)
    if clip_values is None or any(np.ndim(value) for value in clip_values):
        return None
    low, high = clip_values
    return float(low), float(high)


# Files: a format is one reader and one writer in the tables at the end


def _read_npy(path: Path) -> _Media:
    x = np.load(path, allow_pickle=False)
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "biuf":
        raise ValueError("it must hold one array of numbers")
    clip_values = None
    if x.dtype == np.uint8:
        clip_values = (0.0, 255.0)
    elif x.dtype.kind == "f" and x.size and x.min() >= 0 and x.max() <= 1:
        clip_values = (0.0, 1.0)
    single = x.ndim == 3
    return _Media(x[None] if single else x, single, is_image=False, clip_values=clip_values)


def _read_image(path: Path) -> _Media:
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I;16"):  # 16 bits of grey, which convert() would saturate
            x, alpha = np.asarray(image, dtype=np.float32)[..., None] / 65535, None
        else:
            has_alpha = image.has_transparency_data
            grey = image.mode in ("1", "L", "LA", "La")
            alpha = np.asarray(image.convert("RGBA"))[..., 3] if has_alpha else None
            pixels = np.asarray(image.convert("L" if grey else "RGB"), dtype=np.float32)
            x = (pixels[..., None] if grey else pixels) / 255
    return _Media(x[None], single=True, is_image=True, clip_values=(0.0, 1.0), alpha=alpha)


def _npy(media: _Media) -> bytes:
    file = io.BytesIO()
    np.save(file, media.x[0] if media.single and len(media.x) == 1 else media.x)
    return file.getvalue()


def _png(media: _Media) -> bytes:
    image = _image(media)
    if media.alpha is not None:
        from PIL import Image

        image.putalpha(Image.fromarray(media.alpha))
    return _encoded(image, format="PNG")


def _jpeg(media: _Media) -> bytes:
    if media.alpha is not None and media.alpha.min() < 255:
        raise ValueError("a JPEG file cannot hold the transparency of IN; write a .png file")
    return _encoded(_image(media), format="JPEG", quality=95, subsampling=0)


def _encoded(image: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def _image(media: _Media) -> Any:
    """Make a Pillow image of 8 bits out of a batch of one."""
    from PIL import Image

    x = media.x
    if x.ndim != 4 or len(x) != 1 or x.shape[-1] not in (1, 3):
        raise ValueError(
            "an image file holds one image, (1, H, W, 1) or (1, H, W, 3), and the result has "
            f"shape {x.shape}; write a .npy file"
        )
    if media.clip_values is None:
        raise ValueError(
            "the range of the values is not known, and an image file needs it; "
            "give it as --param 'clip_values=(low, high)', or write a .npy file"
        )
    low, high = media.clip_values
    pixels = np.rint((np.clip(x[0], low, high) - low) / (high - low) * 255).astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


_READERS: dict[str, Callable[[Path], _Media]] = {
    ".jpeg": _read_image,
    ".jpg": _read_image,
    ".npy": _read_npy,
    ".png": _read_image,
}
_WRITERS: dict[str, Callable[[_Media], bytes]] = {
    ".jpeg": _jpeg,
    ".jpg": _jpeg,
    ".npy": _npy,
    ".png": _png,
}


def _by_suffix(path: Path, table: dict[str, Any], verb: str) -> Any:
    try:
        return table[path.suffix.lower()]
    except KeyError:
        raise ValueError(f"cannot {verb} {str(path)!r}: the name must end in {', '.join(table)}") from None


def _read(path: Path) -> _Media:
    """Read a file; whatever its decoder has to say, the message names the file."""
    read = _by_suffix(path, _READERS, "read")
    try:
        media: _Media = read(path)
    except Exception as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot read {str(path)!r}: {reason}") from error
    return media


def _check_target(path: Path, *, force: bool) -> None:
    if path.is_dir():
        raise ValueError(f"cannot write {str(path)!r}: it is a folder")
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
    if os.path.lexists(path) and not force:
        raise ValueError(f"{str(path)!r} exists; give --force to replace it")


def _write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, through a temporary one in the same folder."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
