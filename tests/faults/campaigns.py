"""Damaged files, in numbers: what each reader makes of a file in which something was changed.

`python -m tests.faults.campaigns` prints a table of all campaigns; `--number 10000` makes them longer, and
`--fuzz NAME` lets atheris, if it is installed, choose the changes by the code that they reach. `--bombs`
prints what memory small files take that announce much, on Linux; `--kills 60` kills processes that write.
"""

import argparse
import inspect
import io
import json
import struct
import subprocess
import sys
import tempfile
import time
import wave
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from preshield import Denoiser
from preshield.codecs import h264, mp3
from preshield.evaluation.detection_report import DetectionReport, Scored
from preshield.evaluation.report import Column, RobustnessReport, RobustnessRow, Threat
from preshield.evaluation.smoothing_report import SmoothingReport
from preshield.evaluation.vote_report import VoteReport
from preshield.files import Media, encoder_for, read_media, read_samples
from preshield.neural.model_files import model_format

__all__ = ["CAMPAIGNS", "Campaign", "bombs", "changed", "kills", "outcomes"]

SMOOTH = np.linspace(0, 255, 24 * 40 * 3).reshape(24, 40, 3)
NOISE = np.random.default_rng(0).normal(0, 8, (24, 40, 3))
PICTURE = np.clip(SMOOTH + NOISE, 0, 255).astype(np.uint8)
SOUND = np.sin(np.arange(9000) / 17) * 8000 + np.random.default_rng(1).normal(0, 300, 9000)


def changed(whole: bytes, rng: np.random.Generator) -> bytes:
    """A file with one change of any of seven kinds, and half the time another one."""
    data = bytearray(whole)
    while True:
        start = int(rng.integers(len(data) + 1))
        length = int(rng.integers(1, 9))
        kind = rng.integers(7)
        if kind == 0 and start < len(data):
            data[start] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[start : start + length] = rng.bytes(length)
        elif kind == 2:
            del data[start : start + int(rng.integers(1, 200))]
        elif kind == 3:
            data[start:start] = rng.bytes(length)
        elif kind == 4:
            del data[start:]
        elif kind == 5:
            data[start:start] = data[start : start + int(rng.integers(1, 200))]
        else:
            data[start : start + length] = bytes([int(rng.choice([0, 255]))]) * length
        if rng.random() < 0.5 or not data:
            return bytes(data)


def changed_value(whole: bytes, rng: np.random.Generator) -> bytes:
    """A document of JSON with another value somewhere, or the value of another place."""
    document = json.loads(whole)
    places = list(_places(document))
    container, key = places[rng.integers(len(places))]
    other, other_key = places[rng.integers(len(places))]
    values = [None, True, -1, 1e308, 10**30, "", "x", "\ud800", [], {}, [[]], {"x": 1}, {"tuple": [1]}]
    value = other[other_key] if rng.random() < 0.5 else values[rng.integers(len(values))]
    container[key] = json.loads(json.dumps(value))
    return json.dumps(document).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


@dataclass(frozen=True)
class Campaign:
    """A whole file, and who reads it.

    Attributes
    ----------
    whole : callable
        Makes the file.
    read : callable
        Reads bytes; returns anything with a repr, or arrays.
    exact : bool
        Whether the format has checksums over all that is read, so that no change may go unnoticed.
    error : type
        The one error that it may raise.
    change : callable
        `(whole, rng) -> changed`.
    """

    whole: Callable[[], bytes]
    read: Callable[[bytes], Any]
    exact: bool = False
    error: type[Exception] = ValueError
    change: Callable[[bytes, np.random.Generator], bytes] = changed


def outcomes(campaign: Campaign, number: int, seed: int = 0) -> Counter[str]:
    """Read so many changed files; count those refused, those that read as before, and the others.

    Any other error than the campaign's passes, with a note that says how to repeat it.
    """
    whole = campaign.whole()
    before, counts = campaign.read(whole), Counter[str]()
    for i in range(number):
        data = campaign.change(whole, np.random.default_rng([seed, i]))
        try:
            counts["same" if _same(campaign.read(data), before) else "other"] += 1
        except campaign.error:
            counts["refused"] += 1
        except Exception as error:
            error.add_note(f"change number {i} of seed {seed}")
            raise
    return counts


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, np.ndarray):
        return one.shape == other.shape and np.array_equal(one, other)
    return bool(one == other)


# Files


def _read_file(suffix: str, data: bytes) -> Any:
    path = Path(_folder().name, f"x{suffix}")
    path.write_bytes(data)
    if suffix == ".npz":
        return read_samples(path)
    if suffix in (".keras", ".pt", ".pt2"):
        return model_format(path)
    return read_media(path).x


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="preshield-campaign-")


def _image(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, kind, **options)
    return file.getvalue()


def _flac() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as output:
        stream = output.add_stream("flac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(SOUND.astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = 8000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def _wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(8000)
        output.writeframes(SOUND.astype("<i2").tobytes())
    return file.getvalue()


def _clip() -> np.ndarray:
    return np.stack([np.roll(PICTURE, i, axis=1) for i in range(8)])


def _video(suffix: str) -> bytes:
    return encoder_for(Path(f"x{suffix}"), "video")(Media(_clip(), "video", (0.0, 255.0), rate=25))


def _array(save: Callable[..., Any], *arguments: Any, **arrays: Any) -> bytes:
    file = io.BytesIO()
    save(file, *arguments, **arrays)
    return file.getvalue()


def _archive(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return file.getvalue()


def _keras() -> bytes:
    return _archive(config_dot_json=b'{"a": 1}', metadata_dot_json=b"{}", model_dot_weights_dot_h5=b"weights")


def _torchscript() -> bytes:
    code = b"def forward(self, x: Tensor) -> Tensor:\n  return torch.relu(x)\n"
    return _archive(m__code__a_dot_py=code, m__constants_dot_pkl=b"", m__data_dot_pkl=b"")


def _exported() -> bytes:
    return _archive(m__models__model_dot_json=b'{"a": 1}', m__data__weights__weight_0=b"weights")


def _report() -> bytes:
    column = Column(np.array([[1, 0, 1]], np.int8), np.array([0.5, 1, np.inf]), "by hand", 0.1)
    row = RobustnessRow("none", None, {"clean": column, "adaptive": column}, 0.001, ("a remark",))
    found = RobustnessReport(
        Threat("l2-minimum", None, (0.0, 1.0)), (row,), (), (), {"seed": 0}, {}, labels=np.arange(3)
    )
    return found.to_json().encode()


def _read_report(data: bytes) -> str:
    path = Path(_folder().name, "report.json")
    path.write_bytes(data)
    found = RobustnessReport.from_json(path)
    found.to_markdown().encode()
    found._repr_html_().encode()
    return str(found)


def _votes() -> bytes:
    return VoteReport(("a", "b"), np.array([[0, 1], [1, 1]]), np.array([0, 1]), 2).to_json().encode()


def _read_votes(data: bytes) -> str:
    path = Path(_folder().name, "votes.json")
    path.write_bytes(data)
    return str(VoteReport.from_json(path))


def _detections() -> bytes:
    found = DetectionReport(
        ("a",), 0.05, 0.5, np.array([0, 1]), Scored(np.array([[0.1], [0.2]]), np.array([0, 1])), {}
    )
    return found.to_json().encode()


def _read_detections(data: bytes) -> str:
    path = Path(_folder().name, "detections.json")
    path.write_bytes(data)
    return str(DetectionReport.from_json(path))


def _smoothing() -> bytes:
    of_two = np.array([0, 1])
    report = SmoothingReport(of_two, np.array([0.1, 0.2]), of_two, of_two, 0.25, 10, 100, 0.001)
    return report.to_json().encode()


def _read_smoothing(data: bytes) -> str:
    path = Path(_folder().name, "smoothing.json")
    path.write_bytes(data)
    return str(SmoothingReport.from_json(path))


def _denoiser() -> bytes:
    denoiser, path = Denoiser(0.25, depth=2, width=2), Path(_folder().name, "whole.npz")
    denoiser.weights = denoiser._initial(1)
    denoiser.save(path)
    return path.read_bytes()


def _read_denoiser(data: bytes) -> str:
    path = Path(_folder().name, "denoiser.npz")
    path.write_bytes(data)
    return repr([array.tolist() for array in Denoiser.load(path).weights or ()])


def _file(suffix: str, whole: Callable[[], bytes], *, exact: bool = False) -> Campaign:
    return Campaign(whole, partial(_read_file, suffix), exact)


CAMPAIGNS: dict[str, Campaign] = {
    "PNG": _file(".png", partial(_image, "PNG"), exact=True),
    "PNG of 16 bits": _file(
        ".png",
        partial(_array, Image.fromarray(PICTURE[..., 0].astype(np.uint16) * 257).save, "PNG"),
        exact=True,
    ),
    "JPEG": _file(".jpg", partial(_image, "JPEG")),
    "progressive JPEG": _file(".jpg", partial(_image, "JPEG", progressive=True)),
    "FLAC": _file(".flac", _flac, exact=True),
    "WAV": _file(".wav", _wav),
    "MP4": _file(".mp4", partial(_video, ".mp4")),
    "MKV": _file(".mkv", partial(_video, ".mkv")),
    "AVI": _file(".avi", partial(_video, ".avi")),
    "MOV": _file(".mov", partial(_video, ".mov")),
    "NPY": _file(".npy", partial(_array, np.save, np.arange(60.0).reshape(3, 20))),
    "NPZ": _file(
        ".npz", partial(_array, np.savez_compressed, x=np.arange(60.0), y=np.arange(60)), exact=True
    ),
    "Keras": _file(".keras", _keras),
    "TorchScript": _file(".pt", _torchscript),
    "torch.export": _file(".pt2", _exported),
    "report": Campaign(_report, _read_report),
    "report, values": Campaign(_report, _read_report, change=changed_value),
    "smoothing": Campaign(_smoothing, _read_smoothing),
    "smoothing, values": Campaign(_smoothing, _read_smoothing, change=changed_value),
    "denoiser": Campaign(_denoiser, _read_denoiser),
    "votes": Campaign(_votes, _read_votes),
    "votes, values": Campaign(_votes, _read_votes, change=changed_value),
    "detections": Campaign(_detections, _read_detections, change=changed_value),
    "MP3 codec": Campaign(lambda: mp3.encode(SOUND.astype(np.int16)[:, None], 16000), mp3.decode),
    "H.264 codec": Campaign(lambda: h264.encode(_clip(), "mp4", 28), h264.decode),
    "H.264 codec, AVI": Campaign(lambda: h264.encode(_clip(), "avi", 28), h264.decode),
}


# Small files that announce much


def _png_of(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _jpeg_of(width: int, height: int) -> bytes:
    data = _image("JPEG", progressive=True)
    place = data.index(b"\xff\xc2") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def _flac_of(samples: int) -> bytes:
    data = bytearray(_flac())
    data[21] = data[21] & 0xF0 | samples >> 32
    data[22:26] = struct.pack(">I", samples & 0xFFFFFFFF)
    return bytes(data)


def _video_of(frames: int, suffix: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format={".mp4": "mp4", ".mkv": "matroska"}[suffix]) as output:
        stream = output.add_stream("libx264", rate=25, width=1280, height=720, pix_fmt="yuv420p")
        stream.options = {"preset": "ultrafast", "crf": "51", "g": "9999"}
        frame = av.VideoFrame(1280, 720, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        for number in range(frames):
            frame.pts = number
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def _npy_header(*shape: int) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


def bombs(*, small: bool = False) -> Iterator[tuple[str, bytes]]:
    """Names and contents of files that would take 1 GB or more; or 20 MB, which are sooner made."""
    part = 50 if small else 1
    yield "rows.png", _png_of(13_000, 13_000)
    yield "larger.png", _png_of(200_000, 200_000)
    yield "rows.jpg", _jpeg_of(13_000, 13_000)
    yield "largest.jpg", _jpeg_of(65_500, 65_500)
    yield "samples.flac", _flac_of((1 << 36) - 1)
    frames = 32 if small else 400  # whose headers weigh less than a byte for 500 of what they hold
    yield "frames.mp4", _video_of(frames, ".mp4")
    yield "frames.mkv", _video_of(frames, ".mkv")
    yield "zeros.npz", _array(np.savez_compressed, x=np.zeros(150_000_000 // part), y=np.zeros(1))
    blanks = b"\x93NUMPY\2\0" + struct.pack("<I", 1 << 30) + b" " * (1 << 24)
    yield "blanks.npz", _archive(x_dot_npy=blanks, y_dot_npy=_npy_header(1))
    yield "announced.npz", _archive(x_dot_npy=_npy_header(1 << 40), y_dot_npy=_npy_header(1))
    yield "announced.npy", _npy_header(1 << 40)
    yield "blanks.keras", _archive(config_dot_json=b" " * ((300 << 20) // part), metadata_dot_json=b"{}")
    yield "blanks.pt", _archive(m__code__a_dot_py=b"#" * ((300 << 20) // part), m__constants_dot_pkl=b"")
    yield "blanks.pt2", _archive(m__models__model_dot_json=b" " * ((300 << 20) // part))
    yield "lists.json", b'{"format": 2, "report": [' + b"[]," * ((8 << 20) // part) + b"[]]}"
    yield "levels.json", b'{"a":' * (1 << 20)


WRITER = """
import sys
from pathlib import Path
from preshield._core.writing import write_atomically

print("ready", flush=True)
for number in range(10**9):
    write_atomically(Path(sys.argv[1]), str(number % 10) * 300_000)
"""


def kills(folder: Path, number: int) -> Iterator[tuple[bytes, int]]:
    """Kill processes that write one file again and again; what is in it, and how many files there are."""
    path = folder / "x"
    for kill in range(number):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(0.02 + 0.013 * (kill % 5))
            process.kill()
        yield path.read_bytes(), len(list(folder.iterdir()))


READER = r"""
import re, sys
from pathlib import Path
from preshield.evaluation.report import RobustnessReport
from preshield.files import read_media, read_samples
from preshield.neural.model_files import model_format

readers = {".npz": read_samples, ".keras": model_format, ".pt": model_format, ".pt2": model_format}
readers[".json"] = RobustnessReport.from_json
path = Path(sys.argv[1])
try:
    readers.get(path.suffix, read_media)(path)
    found = "read"
except ValueError as error:
    found = "refused, by " + ("the limit" if "limit is" in str(error) else str(error)[-60:])
peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1000
print(f"{path.name:16} {path.stat().st_size:9} bytes {peak:5} MB  {found}")
"""


def large() -> Iterator[tuple[str, bytes]]:
    """Names and contents of files that are just small enough to be read."""
    black = Image.new("RGB", (8192, 4096))
    yield "large.png", _array(black.save, "PNG")
    yield "large.jpg", _array(black.save, "JPEG", progressive=True, subsampling=0)
    yield "alpha.png", _array(Image.new("RGBA", (8192, 4096)).save, "PNG")
    yield "large.npz", _array(np.savez_compressed, x=np.zeros(50_000_000), y=np.zeros(1))


def _print_peaks() -> None:
    """Print what memory each bomb takes, in a process of its own."""
    for name, content in chain(bombs(), large()):
        path = Path(_folder().name, name)
        path.write_bytes(content)
        subprocess.run([sys.executable, "-c", READER, str(path)], check=True)
        path.unlink()


def main() -> None:
    """Run campaigns and print what came of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CAMPAIGNS)}")
    parser.add_argument("--number", type=int, default=200, help="of changed files for each (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--fuzz", metavar="NAME", help="let atheris choose the changes")
    parser.add_argument("--bombs", action="store_true", help="print the memory that small files take")
    parser.add_argument("--kills", type=int, metavar="N", help="kill N processes that write")
    arguments = parser.parse_args()
    if arguments.bombs:
        _print_peaks()
        return
    if arguments.kills:
        found = list(kills(Path(_folder().name), arguments.kills))
        whole = sum(len(content) == 300_000 and len(set(content)) == 1 for content, _ in found)
        print(
            f"{whole} of {len(found)} kills left a whole file; at most {max(n for _, n in found) - 1} others"
        )
        return
    if arguments.fuzz:
        _fuzz(CAMPAIGNS[arguments.fuzz])
        return
    found = {}
    for name in arguments.names or CAMPAIGNS:
        found[name] = dict(outcomes(CAMPAIGNS[name], arguments.number, arguments.seed))
        if not arguments.json:
            counts = (f"{kind} {found[name].get(kind, 0):6}" for kind in ("refused", "same", "other"))
            print(f"{name:20}", *counts, flush=True)
    if arguments.json:
        print(json.dumps(found, indent=1))


def _fuzz(campaign: Campaign) -> None:
    """Change a file until atheris is stopped, or for ten minutes; what is run of Python guides it."""
    import atheris

    def once(data: bytes) -> None:
        try:
            campaign.read(data)
        except campaign.error:
            return

    corpus = Path(tempfile.mkdtemp(prefix="preshield-corpus-"))
    (corpus / "whole").write_bytes(campaign.whole())
    campaign.read(campaign.whole())  # so that all is imported
    for module in [module for name, module in sys.modules.items() if name.startswith("preshield")]:
        for name, value in list(vars(module).items()):
            if inspect.isfunction(value) and value.__module__ == module.__name__:
                setattr(module, name, atheris.instrument_func(value))
    options = ["-max_total_time=600", "-rss_limit_mb=2048", "-max_len=100000"]
    atheris.Setup([sys.argv[0], str(corpus), *options], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
