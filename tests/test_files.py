"""Reading and writing; what `preshield apply` does with it is tested in test_cli.py."""

import io
import re
import struct
import wave
import zipfile
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from preshield._core.limits import Limit
from preshield.codecs import h264
from preshield.files import (
    FORMATS,
    Media,
    check_target,
    encoder_for,
    kind_of,
    range_of,
    read_media,
    read_parts,
    read_picture,
    read_samples,
)

RNG = np.random.default_rng(0)
X = RNG.random((4, 6, 5, 3), dtype=np.float32)
Y = np.arange(4)


def stored(path, media):
    """A file with this content."""
    path.write_bytes(encoder_for(path, media.kind)(media))
    return path


@pytest.mark.parametrize("suffix", [".jpeg", ".jpg", ".npy", ".png"])
@pytest.mark.parametrize("channels", [1, 3])
def test_formats_of_images_read_what_they_write(tmp_path, suffix, channels):
    smooth = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8, 1).repeat(channels, axis=-1)
    media = read_media(stored(tmp_path / f"file{suffix.upper()}", Media(smooth, "image", (0, 1))))
    assert media.kind == kind_of(tmp_path / f"file{suffix}")
    assert media.clip_values == (0, 1)
    assert media.x.dtype == np.float32
    np.testing.assert_allclose(media.x, smooth, atol=0.02)


@pytest.mark.parametrize("x", [X, X[0], X[0, 0, 0], Y], ids=lambda x: str(x.shape))
def test_npy(tmp_path, x):
    np.save(tmp_path / "x.npy", x)
    media = read_media(tmp_path / "x.npy")
    assert media.kind == "array"
    np.testing.assert_array_equal(np.load(stored(tmp_path / "out.npy", media)), x)


@pytest.mark.parametrize(
    ("kind", "suffixes"),
    [
        ("array", ".jpeg, .jpg, .npy, .png"),
        ("audio", ".npy, .wav"),
        ("image", ".jpeg, .jpg, .npy, .png"),
        ("video", ".avi, .mkv, .mov, .mp4, .npy"),
    ],
)
def test_what_a_kind_can_be_written_to(kind, suffixes):
    for suffix in FORMATS:
        if suffix in suffixes.split(", "):
            encoder_for(Path(f"x{suffix}"), kind)
        else:
            with pytest.raises(ValueError, match=rf": for {kind} data the name must end in {suffixes}$"):
                encoder_for(Path(f"x{suffix}"), kind)


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.zeros(3, dtype=np.uint8), (0, 255)),
        (np.array([0.2, 1]), (0, 1)),
        (np.array([0, 1.5]), None),
        (np.array([-0.1, 1]), None),
        (np.array([0, 1]), None),
        (np.array([np.nan, 1]), None),
        (np.zeros((0, 3)), None),
    ],
)
def test_range_of(x, expected):
    assert range_of(x) == expected


@pytest.mark.parametrize("names", [("x", "y"), ("x_test", "y_test")])
def test_samples(tmp_path, names):
    arrays = {"x_train": X[:1], "y_train": Y[:1], **dict(zip(names, (X, Y), strict=True))}
    np.savez_compressed(tmp_path / "data.npz", **arrays)
    x, y = read_samples(tmp_path / "data.npz")
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, Y)


def test_x_and_y_come_before_those_of_a_test_set(tmp_path):
    np.savez(tmp_path / "data.npz", x=X, y=Y, x_test=X[:1], y_test=Y[:1])
    assert len(read_samples(tmp_path / "data.npz")[0]) == 4


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "must hold the arrays x and y, or x_test and y_test; it holds nothing"),
        ({"z": X, "x": X}, "must hold the arrays x and y, or x_test and y_test; it holds x, z"),
        ({"x": X, "y_test": Y}, "it holds x, y_test"),
        ({"x": X, "y": Y[:3]}, "it must hold one label for each sample, got 3 for 4"),
        ({"x": X, "y": np.array(["cat"] * 4)}, "y must be an array of numbers, got shape (4,) of <U3"),
        ({"x": X, "y": np.array(3)}, "y must be an array of numbers, got shape () of int64"),
        ({"x": X.astype(complex), "y": Y}, "x must be an array of numbers"),
        ({"x": np.array([{}] * 4), "y": Y}, "x must be an array of numbers, got shape (4,) of object"),
    ],
)
def test_samples_that_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(ValueError, match=rf"cannot read '.*data.npz': .*{re.escape(message)}"):
        read_samples(tmp_path / "data.npz")


def test_files_that_hold_no_samples(tmp_path):
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "x.npy").rename(tmp_path / "array.npz")
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "data.npz", x=X, y=Y)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "data.npz").read_bytes()[:300])
    for name, reason in {
        "none.npz": "No such file or directory",
        "array.npz": "it is truncated, or no .npz archive",
        "text.npz": "it is truncated, or no .npz archive",
        "cut.npz": "it is truncated, or no .npz archive",
    }.items():
        with pytest.raises(ValueError, match=f"cannot read '.*{name}': .*{reason}"):
            read_samples(tmp_path / name)
    with pytest.raises(ValueError, match=r"the name must end in .npz"):
        read_samples(tmp_path / "data.csv")


def test_unknown_formats(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read '.*x.gif': the name must end in .avi, .flac, .jpeg"):
        read_media(tmp_path / "x.gif")
    with pytest.raises(
        ValueError, match=r"cannot write '.*x.gif': for image data the name must end in .jpeg"
    ):
        encoder_for(tmp_path / "x.gif", "image")


def test_targets(tmp_path):
    check_target(tmp_path / "new.png")
    with pytest.raises(ValueError, match="it is a folder"):
        check_target(tmp_path)
    with pytest.raises(ValueError, match=r"there is no folder '.*no'"):
        check_target(tmp_path / "no" / "x.png")


# Images that are damaged, and others that only look odd

NOISE = np.random.default_rng(0).integers(0, 256, (29, 45, 3), dtype=np.uint8)


def png(width, height, data, *, depth=8, colour=2, interlaced=False, more=()):
    """A PNG file of these compressed rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    parts = [(b"IHDR", header), *more, (b"IDAT", data), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("rows", [0, 10, 63])
def test_a_png_of_fewer_rows_is_damaged(tmp_path, rows):
    path = tmp_path / "x.png"
    path.write_bytes(png(64, 64, zlib.compress(bytes(193 * 64))))
    assert read_media(path).x.shape == (64, 64, 3)
    path.write_bytes(png(64, 64, zlib.compress(bytes(193 * rows))))
    with pytest.raises(ValueError, match=r"cannot read '.*x.png': it is truncated, damaged, or no .png file"):
        read_media(path)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2), (5, 1), (4, 4), (9, 17), (45, 29)])
@pytest.mark.parametrize(("colour", "depth"), [(0, 1), (0, 2), (0, 16), (2, 8), (3, 4), (4, 8), (6, 16)])
def test_an_interlaced_png_of_exactly_its_rows_is_whole(tmp_path, size, colour, depth):
    """Bytes counted pixel by pixel, by the order in which the standard numbers the passes."""
    width, height = size
    passes = ["16462646", "77777777", "56565656", "77777777", "36463646", "77777777", "56565656", "77777777"]
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    total = 0
    for number in "1234567":
        rows = [
            sum(passes[y % 8][x % 8] == number for x in range(width))
            for y in range(height)
            if number in passes[y % 8]
        ]
        total += sum(1 + -(-count * bits // 8) for count in rows if count)
    palette = [(b"PLTE", bytes(48))] if colour == 3 else []
    path = tmp_path / "x.png"
    options = {"depth": depth, "colour": colour, "interlaced": True, "more": palette}
    path.write_bytes(png(width, height, zlib.compress(bytes(total)), **options))
    assert read_media(path).x.shape[:2] == (height, width)
    path.write_bytes(png(width, height, zlib.compress(bytes(total - 1)), **options))
    with pytest.raises(ValueError, match="it is truncated, damaged"):
        read_media(path)


def test_a_png_with_another_bit_is_damaged(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(NOISE).save(path, compress_level=0)
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="broken PNG file"):
        read_media(path)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"subsampling": 0, "quality": 100},
        {"subsampling": 1},
        {"restart_marker_rows": 1, "comment": b"\xff\xd9", "exif": b"Exif\0\0" + bytes(40)},
    ],
    ids=str,
)
def test_a_jpeg_that_ends_too_soon_is_damaged(tmp_path, mode, options):
    path = tmp_path / "x.jpg"
    Image.fromarray(NOISE).convert(mode).save(path, **options)
    whole = path.read_bytes()
    assert read_media(path).x.shape == (29, 45, 1 if mode == "L" else 3)
    if mode == "CMYK" and options.get("subsampling") == 1:
        return  # which FFmpeg does not know
    for kept in (0.4, 0.6, 0.7):
        path.write_bytes(whole[: int(kept * len(whole))] + b"\xff\xd9")
        with pytest.raises(ValueError, match=r"(?i)truncated"):
            read_media(path)
    path.write_bytes(whole + b"the film of a live photo")
    assert read_media(path).x.shape == (29, 45, 1 if mode == "L" else 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "EPS", "TIFF", "PPM", "BMP"])
def test_a_file_holds_what_its_name_says(tmp_path, kind):
    Image.fromarray(NOISE).save(tmp_path / "picture", format=kind)
    for suffix in ("png", "jpg"):
        path = tmp_path / f"x.{suffix}"
        path.write_bytes((tmp_path / "picture").read_bytes())
        if kind == {"png": "PNG", "jpg": "JPEG"}[suffix]:
            read_media(path)
        else:
            with pytest.raises(ValueError, match=f"it is truncated, damaged, or no .{suffix} file"):
                read_media(path)


@pytest.mark.parametrize("height", [1, 255, 256, 257, 600])
def test_images_of_many_strips(tmp_path, height):
    x = np.random.default_rng(height).integers(0, 256, (height, 3, 4), dtype=np.uint8)
    Image.fromarray(x).save(tmp_path / "x.png")
    media = read_media(tmp_path / "x.png")
    np.testing.assert_array_equal(np.rint(media.x * 255), x[..., :3])
    np.testing.assert_array_equal(media.alpha, x[..., 3])


# Limits: what a header says is enough


def test_limits(tmp_path):
    Image.fromarray(NOISE).save(tmp_path / "x.png")
    wavfile.write(tmp_path / "x.wav", 8000, np.zeros(8000, np.int16))
    video_file(tmp_path / "x.mp4")
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((100, 100)), y=np.zeros(100))
    np.save(tmp_path / "x.npy", np.zeros(5000))
    read_media(tmp_path / "x.png", Limit(45 * 29, 12 * 45 * 29))
    with pytest.raises(
        ValueError,
        match=r"'.*x.png': it holds pictures of 45 x 29 pixels, and the limit is 1304; if you trust it, "
        r"set the environment variable PRESHIELD_MAX_PIXELS=1305$",
    ):
        read_media(tmp_path / "x.png", Limit(45 * 29 - 1, 10**9))
    for name, needed, growth in (("x.mp4", 12 * 48 * 64 * 3, 500), ("x.npz", 80800, 4)):
        size = (tmp_path / name).stat().st_size
        least = Limit(10**9, needed)
        read = read_samples if name == "x.npz" else read_media
        read(tmp_path / name, least)
        if needed > growth * size:
            with pytest.raises(ValueError, match=rf"holds {needed} bytes .* of {size}, .*_BYTES={needed}$"):
                read(tmp_path / name, Limit(10**9, 1))
    read_media(tmp_path / "x.npy", Limit(10**9, 1))  # no larger than its file
    read_media(tmp_path / "x.wav", Limit(10**9, 1))


def test_limits_from_the_environment(tmp_path, monkeypatch):
    Image.fromarray(NOISE).save(tmp_path / "x.png")
    monkeypatch.setenv("PRESHIELD_MAX_PIXELS", "1304")
    with pytest.raises(ValueError, match="PRESHIELD_MAX_PIXELS=1305"):
        read_media(tmp_path / "x.png")
    monkeypatch.setenv("PRESHIELD_MAX_PIXELS", "1305")
    read_media(tmp_path / "x.png")
    monkeypatch.setenv("PRESHIELD_MAX_PIXELS", "many")
    with pytest.raises(ValueError, match="PRESHIELD_MAX_PIXELS must be a positive integer, got 'many'"):
        read_media(tmp_path / "x.png")


def test_a_large_image_can_be_read(tmp_path, monkeypatch):
    """Above Pillow's own limit, with which nobody is bothered."""
    Image.fromarray(NOISE).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError, match="exceeds limit of 200 pixels"):
        Image.open(tmp_path / "x.png")
    assert read_media(tmp_path / "x.png").x.shape == NOISE.shape


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_that_expand_all_at_once(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", method) as archive:
        for name in "xy":
            file = io.BytesIO()
            np.save(file, np.zeros(9))
            archive.writestr(f"{name}.npy", file.getvalue())
    with pytest.raises(ValueError, match=r"its member 'x.npy' is not deflated"):
        read_samples(tmp_path / "x.npz")


# Audio. SciPy and the standard library write and read it, too

STEREO = RNG.integers(-(2**15), 2**15, (3000, 2))
STEREO[:2] = [[-(2**15), 2**15 - 1], [0, 1]]


def write_24_bits(path, rate, steps):
    """WAV of 24 bits; `steps` hold them in the upper bits."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(steps.shape[1])
        file.setsampwidth(3)
        file.setframerate(rate)
        file.writeframes(steps.astype("<i4").reshape(-1, 1).view(np.uint8)[:, 1:].tobytes())


@pytest.mark.parametrize(
    ("steps", "x", "dtype"),
    [
        ((STEREO // 256 + 128).astype(np.uint8), STEREO // 256 / 2**7, np.float32),
        (STEREO.astype(np.int16), STEREO / 2**15, np.float32),
        (STEREO.astype(np.int32) * 65536, STEREO / 2**15, np.float64),
        (STEREO.astype(np.int32) * 65536 + 77, STEREO / 2**15 + 77 / 2**31, np.float64),
        ((STEREO / 2**14).astype(np.float32), STEREO / 2**14, np.float32),
        (STEREO / 2**14 + 1e-12, STEREO / 2**14 + 1e-12, np.float64),
        ("24 bits", STEREO / 2**15 + 11 / 2**23, np.float32),
    ],
    ids=["u8", "s16", "s32", "s32 in full", "f32", "f64", "s24"],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_wav(tmp_path, steps, x, dtype, channels):
    path = tmp_path / "in.wav"
    if isinstance(steps, str):
        steps = (STEREO.astype(np.int32) * 65536) + 11 * 256
        write_24_bits(path, 11025, steps[:, :channels])
    else:
        wavfile.write(path, 11025, steps[:, :channels])
    media = read_media(path)
    assert (media.kind, media.rate, media.clip_values) == ("audio", 11025, (-1, 1))
    assert media.x.dtype == dtype
    np.testing.assert_array_equal(media.x, x[:, 0] if channels == 1 else x)
    rate, written = wavfile.read(stored(tmp_path / "out.wav", media))
    assert rate == 11025
    np.testing.assert_array_equal(written.reshape(3000, channels), steps[:, :channels])
    assert read_media(tmp_path / "out.wav").encoding == media.encoding


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("pcm_u8", [0, 255, 128, 129, 0]),
        ("pcm_s16le", [-32768, 32767, 0, 128, -32768]),
        ("pcm_s32le", [-(2**31), 2**31 - 1, 2**13, 129 * 2**16, -(2**31)]),
        ("pcm_f32le", np.float32([-2, 1.5, 2**-18, 129 / 2**15, -1])),
    ],
)
def test_wav_rounds_and_saturates(tmp_path, encoding, expected):
    expected = np.array(expected)
    if encoding == "pcm_s16le":
        expected[3] = 129
    x = np.array([-2, 1.5, 2**-18, 129 / 2**15, -1])
    path = stored(tmp_path / "x.wav", Media(x, "audio", rate=8000, encoding=encoding))
    np.testing.assert_array_equal(wavfile.read(path)[1], expected)


@pytest.mark.parametrize("large", [False, True])
def test_wav_of_several_blocks_and_channels(tmp_path, monkeypatch, large):
    monkeypatch.setattr("preshield.files.CHUNK", 1000)
    if large:
        monkeypatch.setattr("preshield.files.LARGE", 1000)
    x = (RNG.integers(-(2**23), 2**23, (3333, 6)) / 2**23).astype(np.float32)
    path = stored(tmp_path / "x.wav", Media(x, "audio", rate=96000, encoding="pcm_s24le"))
    assert path.read_bytes()[12:22] == (
        b"JUNK\x1c\0\0\0\0\0" if large else b"fmt \x28\0\0\0\xfe\xff"  # the kind that knows speakers
    )
    media = read_media(path)
    assert media.rate == 96000
    np.testing.assert_array_equal(media.x, x)


def write_audio(path, steps, codec, container, rate=8000):
    """A file of FFmpeg's, of int16."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(steps[None], format="s16", layout="mono")
        frame.sample_rate = rate
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def test_flac_and_a_wav_that_is_not_linear(tmp_path):
    steps = STEREO[:, 0].astype(np.int16)
    media = read_media(write_audio(tmp_path / "x.flac", steps, "flac", "flac"))
    assert (media.rate, media.encoding) == (8000, "pcm_s16le")
    np.testing.assert_array_equal(media.x, steps / 2**15)
    media = read_media(write_audio(tmp_path / "x.wav", steps, "pcm_alaw", "wav"))
    assert media.encoding == "pcm_s16le"
    np.testing.assert_allclose(media.x, steps / 2**15, atol=1 / 32)


@pytest.mark.parametrize("shape", [(2, 4000), (2, 400, 2), (400, 9)])
def test_audio_that_no_wav_can_hold(shape):
    with pytest.raises(
        ValueError, match=r"holds one recording, \(length,\) or .* has shape .*; write a .npy"
    ):
        encoder_for(Path("x.wav"), "audio")(Media(np.zeros(shape), "audio", rate=8000))


# 20 bytes: a header; 44: no more than that; 4140: FFmpeg reads blocks of 4096
@pytest.mark.parametrize("length", [0, 1, 10, 20, 44, 4140, 6000, 6042, 6043])
def test_truncated_wav(tmp_path, length):
    path = tmp_path / "x.wav"
    wavfile.write(path, 8000, STEREO[:, 0].astype(np.int16))
    whole = path.read_bytes()
    assert len(whole) == 6044
    path.write_bytes(whole[:length])
    with pytest.raises(ValueError, match=r"cannot read '.*x.wav': it is truncated, damaged, or no .wav file"):
        read_media(path)


@pytest.mark.parametrize("unknown", [b"\xff\xff\xff\xff", b"\0\0\0\0"])
def test_wav_from_a_pipe_says_no_length(tmp_path, unknown):
    path = tmp_path / "x.wav"
    wavfile.write(path, 8000, STEREO.astype(np.int16))
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + unknown + whole[8:40] + unknown + whole[44:])
    np.testing.assert_array_equal(read_media(path).x, STEREO / 2**15)


def test_wav_with_chunks_of_odd_length(tmp_path):
    path = tmp_path / "x.wav"
    wavfile.write(path, 8000, np.full(9, 192, np.uint8))
    whole = path.read_bytes()
    path.write_bytes(whole[:12] + b"note\3\0\0\0abc\0" + whole[12:53])  # without the last byte of padding
    np.testing.assert_array_equal(read_media(path).x, np.full(9, 0.5))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="it is truncated"):
        read_media(path)


@pytest.mark.parametrize("cut", [1, 30, 2000])
def test_truncated_flac(tmp_path, cut):
    path = write_audio(tmp_path / "x.flac", RNG.integers(-999, 999, 9000).astype(np.int16), "flac", "flac")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=r"cannot read '.*x.flac': it is truncated"):
        read_media(path)


def test_damaged_flac(tmp_path):
    path = write_audio(tmp_path / "x.flac", RNG.integers(-999, 999, 9000).astype(np.int16), "flac", "flac")
    whole = path.read_bytes()
    for position in range(len(whole) // 2, len(whole), 499):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
        with pytest.raises(ValueError, match="it is truncated"):
            read_media(path)


def test_flac_states_the_sum_of_its_samples(tmp_path):
    """Blocks that each have a checksum of their own may still be others, or one too many."""
    steps = RNG.integers(-999, 999, 9000).astype(np.int16)
    path = write_audio(tmp_path / "x.flac", steps, "flac", "flac")
    assert read_media(path).x.shape == (9000,)
    data = bytearray(path.read_bytes())
    data[30] ^= 1  # of the sum
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"cannot read '.*x.flac': it is damaged: its samples do not have"):
        read_media(path)
    data[26:42] = bytes(16)  # its writer could not go back to it
    path.write_bytes(data)
    assert read_media(path).x.shape == (9000,)


def test_flac_cut_between_two_blocks(tmp_path):
    path = write_audio(tmp_path / "x.flac", RNG.integers(-999, 999, 9000).astype(np.int16), "flac", "flac")
    with av.open(str(path)) as file:
        *_, last = [packet.pos for packet in file.demux() if packet.size]
    path.write_bytes(path.read_bytes()[:last])
    with pytest.raises(ValueError, match=r"it is truncated: it holds [0-9]+ samples of 9000"):
        read_media(path)


def test_wav_with_a_tag_that_is_not_utf_8(tmp_path):
    path = tmp_path / "x.wav"
    wavfile.write(path, 8000, np.full(9, 192, np.uint8))
    whole = path.read_bytes()
    artist = b"LIST\x12\0\0\0INFOIART\6\0\0\0Bj\xf6rk\0"
    path.write_bytes(whole[:36] + artist + whole[36:])
    np.testing.assert_array_equal(read_media(path).x, np.full(9, 0.5))


def test_wav_without_samples(tmp_path):
    wavfile.write(tmp_path / "x.wav", 8000, np.zeros(0, np.int16))
    with pytest.raises(ValueError, match="it holds no audio"):
        read_media(tmp_path / "x.wav")


# Video

CONTAINERS = ["avi", "mkv", "mov", "mp4"]
RAMP = np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3)
CLIP = np.stack([np.roll(RAMP, i, axis=0) for i in range(12)]).astype(np.uint8)  # (F, H, W, 3)


def video_file(path, frames=CLIP, rate=25, **options):
    """A video of x264, muxed with these options."""
    with av.open(str(path), "w", options={k: str(v) for k, v in options.items()}) as output:
        stream = output.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = h264.encoder_options(5, "medium") | {"g": "4"}
        for pixels in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)], ids=str)
def test_video(tmp_path, container, rate):
    path = video_file(tmp_path / f"x.{container}", rate=rate)
    media = read_media(path)
    assert (media.kind, media.rate, media.clip_values) == ("video", rate, (0, 255))
    assert media.x.dtype == np.uint8
    np.testing.assert_array_equal(media.x, h264.decode(path.read_bytes()))
    again = read_media(stored(tmp_path / f"out.{container}", media))
    assert again.rate == rate
    assert again.x.shape == CLIP.shape
    with av.open(str(tmp_path / f"out.{container}")) as file:
        assert file.streams.video[0].codec_context.name == "h264"
        assert file.duration == pytest.approx(12 / rate * 10**6, rel=1e-3)


@pytest.mark.parametrize("size", [(48, 64), (47, 64), (48, 63), (1, 1)], ids=str)
def test_written_video_looks_the_same_and_keeps_its_size(tmp_path, size):
    clip = CLIP[:, : size[0], : size[1]]
    media = Media(clip, "video", (0.0, 255.0), rate=25)
    written = read_media(stored(tmp_path / "x.mp4", media)).x
    assert written.shape == clip.shape
    assert np.sqrt(np.mean((written.astype(float) - clip) ** 2)) < 2.5
    scaled = Media(clip / np.float32(127.5) - 1, "video", (-1, 1), rate=25)
    np.testing.assert_array_equal(read_media(stored(tmp_path / "scaled.mp4", scaled)).x, written)


def test_frames_of_a_video(tmp_path):
    path = video_file(tmp_path / "x.mp4", rate=8)
    frames = list(read_parts(path))
    assert {(frame.kind, frame.rate, frame.clip_values, frame.seconds) for frame in frames} == {
        ("video", 8, (0, 255), Fraction(3, 2))
    }
    np.testing.assert_array_equal(np.concatenate([frame.x for frame in frames]), read_media(path).x)


def test_video_without_a_known_rate(tmp_path):
    assert read_media(stored(tmp_path / "x.mp4", Media(CLIP, "video", (0, 255)))).rate == 25


def test_rotated_video_is_turned_upright(tmp_path):
    path = video_file(tmp_path / "x.mp4")
    as_stored = read_media(path).x
    one = b"\0\1\0\0"
    upright = one + bytes(12) + one + bytes(12)
    # (x, y) of the stored frames is shown at (-y, x): what points right then points down
    quarter = bytes(4) + one + bytes(4) + b"\xff\xff\0\0" + bytes(16)
    movie, track, rest = path.read_bytes().split(upright)  # the matrices of the film and of its only track
    path.write_bytes(movie + upright + track + quarter + rest)
    media = read_media(path)
    assert media.x.shape == (12, 64, 48, 3)
    np.testing.assert_array_equal(media.x, np.rot90(as_stored, -1, axes=(1, 2)))


@pytest.mark.parametrize(
    ("container", "movflags"),
    [
        *((container, None) for container in CONTAINERS),
        *((container, "faststart") for container in ("mov", "mp4")),
    ],
)
@pytest.mark.parametrize("kept", [0, 0.001, 0.3, 0.6, 0.99, -1], ids=str)
def test_truncated_video(tmp_path, container, kept, movflags):
    path = video_file(tmp_path / f"x.{container}", **({"movflags": movflags} if movflags else {}))
    assert len(read_media(path).x) == 12
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if kept < 0 else int(kept * len(whole))])
    with pytest.raises(
        ValueError, match=rf"cannot read '.*': it is truncated, damaged, or no .{container} file"
    ):
        read_media(path)


def fragmented(path):
    """The bytes of a video of four fragments, each with three frames, and where its boxes end."""
    whole = video_file(path, movflags="frag_keyframe+empty_moov").read_bytes()
    ends, end = [], 0
    while end < len(whole):
        length, kind = int.from_bytes(whole[end : end + 4], "big"), whole[end + 4 : end + 8]
        end += length
        ends.append((kind, end))
    assert [kind for kind, _ in ends] == [b"ftyp", b"moov", *[b"moof", b"mdat"] * 4, b"mfra"]
    return whole, ends


@pytest.mark.parametrize("container", ["mov", "mp4"])
def test_truncated_fragments(tmp_path, container):
    path = tmp_path / f"x.{container}"
    whole, boxes = fragmented(path)
    fragments = {end for kind, end in boxes if kind == b"mdat"}
    near = {end + offset for _, end in boxes for offset in (-9, -1, 0, 1, 3, 7, 8, 9, 60)}
    for cut in sorted(cut for cut in near - fragments if cut < len(whole)):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"it is truncated|it holds no frames"):
            read_media(path)


@pytest.mark.parametrize("container", ["mov", "mp4"])
def test_fragments_that_are_whole_make_a_whole_file(tmp_path, container):
    path = tmp_path / f"x.{container}"
    whole, boxes = fragmented(path)
    frames = []
    for end in [end for kind, end in boxes if kind == b"mdat"]:
        path.write_bytes(whole[:end])
        frames.append(len(read_media(path).x))
    assert frames == [3, 6, 9, 12]


@pytest.mark.parametrize("kept", [3, 7, 15, 16])
def test_truncated_box_of_a_long_length(tmp_path, kept):
    path = video_file(tmp_path / "x.mp4")
    whole = path.read_bytes()
    box = (1).to_bytes(4, "big") + b"free" + (4000).to_bytes(8, "big") + bytes(4000 - 16)
    path.write_bytes(whole + box)
    assert len(read_media(path).x) == 12
    path.write_bytes(whole + box[:kept])
    with pytest.raises(ValueError, match="it is truncated"):
        read_media(path)


def test_mkv_from_a_pipe_says_no_length(tmp_path):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        seek = None

    file = Pipe()
    with av.open(file, "w", format="matroska", options={"live": "1"}) as output:
        stream = output.add_stream("libx264", rate=25, width=64, height=48, pix_fmt="yuv420p")
        for pixels in CLIP:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))
    path = tmp_path / "x.mkv"
    path.write_bytes(file.getvalue())
    assert b"\x01\xff\xff\xff\xff\xff\xff\xff" in file.getvalue()
    np.testing.assert_array_equal(read_media(path).x, h264.decode(file.getvalue()))
    path.write_bytes(file.getvalue()[:-1])
    with pytest.raises(ValueError, match="it is truncated"):
        read_media(path)


@pytest.mark.parametrize(
    "message", ["its frame [0-9]+ is damaged", "it is truncated, damaged, or no .mp4 file"]
)
def test_damaged_video(tmp_path, message):
    path = video_file(tmp_path / "x.mp4", RNG.integers(0, 256, CLIP.shape, dtype=np.uint8))
    damaged = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        packets = [(packet.pos, packet.size) for packet in file.demux() if packet.size]
    for position, size in packets:
        if "frame" in message:  # what FFmpeg mostly sees and conceals: bits of the picture
            position += size // 2
            damaged[position : position + 40] = bytes(b ^ 0x55 for b in damaged[position : position + 40])
        else:  # what it cannot decode: the length of what follows
            damaged[position : position + 4] = b"\xff" * 4
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=message):
        read_media(path)


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_matroska_knows_its_sums(tmp_path, at):
    """The lowest bit of one byte in a picture: FFmpeg decodes it without a word."""
    path = video_file(tmp_path / "x.mkv")
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="it is truncated, damaged"):
        read_media(path)


def test_files_without_video(tmp_path):
    sound = write_audio(tmp_path / "sound.mov", STEREO[:, 0].astype(np.int16), "pcm_s16le", "mov")
    with pytest.raises(ValueError, match=r"cannot read '.*sound.mov': it holds no video"):
        read_media(sound)
    with av.open(str(tmp_path / "cover.mp4"), "w") as output:  # a recording with a picture
        audio = output.add_stream("aac", rate=16000, layout="mono")
        cover = output.add_stream("mjpeg", rate=1, width=16, height=16, pix_fmt="yuvj420p")
        cover.disposition = av.stream.Disposition.attached_pic.value
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        output.mux(audio.encode(frame))
        output.mux(audio.encode(None))
        output.mux(cover.encode(av.VideoFrame.from_ndarray(CLIP[0, :16, :16].copy(), format="rgb24")))
        output.mux(cover.encode(None))
    with pytest.raises(ValueError, match=r"cannot read '.*cover.mp4': it holds no video"):
        read_media(tmp_path / "cover.mp4")


@pytest.mark.parametrize("suffix", sorted(set(FORMATS) - {".npy"}))
@pytest.mark.parametrize(
    "content",
    [b"", b"A text, and no more than that.\n" * 20, bytes(5000), b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hosts\n"],
    ids=["empty", "text", "zeros", "playlist"],
)
def test_what_is_no_media_file(tmp_path, suffix, content):
    (tmp_path / f"x{suffix}").write_bytes(content)
    reason = f"(it is truncated, damaged, or no {suffix} file|it holds no audio)$"
    with pytest.raises(ValueError, match=rf"cannot read '.*x{suffix}': {reason}"):
        read_media(tmp_path / f"x{suffix}")


def test_a_text_makes_nobody_read_other_files(tmp_path):
    wavfile.write(tmp_path / "other.wav", 8000, STEREO.astype(np.int16))
    (tmp_path / "x.flac").write_text("ffconcat version 1.0\nfile other.wav\n")
    with av.open(str(tmp_path / "x.flac")) as file:
        assert file.format.name == "concat"
    with pytest.raises(ValueError, match=r"cannot read '.*x.flac'"):
        read_media(tmp_path / "x.flac")


@pytest.mark.parametrize("shape", [(2, 4, 8, 8, 3), (4, 8, 8, 30), (8, 8, 3)])
def test_arrays_that_no_video_file_can_hold(shape):
    with pytest.raises(ValueError, match=r"holds one video, \(F, H, W, 3\), .* has shape .*; write a .npy"):
        encoder_for(Path("x.mp4"), "video")(Media(np.zeros(shape), "video", (0, 1), rate=25))


# Pictures of any name, as networks take them


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_pictures_are_known_by_their_first_bytes(tmp_path, kind):
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    smooth = np.linspace(0, 255, 24 * 16 * 3).reshape(24, 16, 3).astype(np.uint8)
    Image.fromarray(smooth).quantize(200).convert("RGB").save(tmp_path / "x.tif", kind, **options)
    for source in (tmp_path / "x.tif", (tmp_path / "x.tif").read_bytes()):
        picture = read_picture(source)
        assert picture.mode == "RGB"
        np.testing.assert_allclose(np.asarray(picture).astype(int), smooth, atol=12)
    whole = (tmp_path / "x.tif").read_bytes()
    for kept in (0.3, 0.9):
        with pytest.raises(ValueError, match=r"(?i)truncated|decoder"):
            read_picture(whole[: int(kept * len(whole))])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(kind):
    file = io.BytesIO()
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], lossless=True)
    assert read_picture(file.getvalue()).getpixel((0, 0)) == (255, 0, 0)


def test_what_is_no_picture(tmp_path):
    with pytest.raises(ValueError, match=r"^No such file or directory$"):
        read_picture(tmp_path / "none.jpg")
    with pytest.raises(ValueError, match=r"^it is empty$"):
        read_picture(b"")
    with pytest.raises(ValueError, match=r"^it is no picture in the format PNG, JPEG, WebP, GIF or BMP$"):
        read_picture(b"II*\0")


def test_odd_metadata_are_no_trouble():
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    assert read_picture(file.getvalue()).size == (45, 29)
