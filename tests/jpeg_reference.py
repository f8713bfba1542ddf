"""JPEG there and back, written plainly: with its integers, without rounding, or with a cubic quantiser."""

from io import BytesIO

import numpy as np
from PIL import Image
from scipy.fft import dctn, idctn

SUBSAMPLINGS = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}
PILLOW = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}
LUMINANCE = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
CHROMINANCE = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
RGB_TO_YCC = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]])
YCC_TO_RGB = np.array([[65536, 0, 91881], [65536, -22554, -46802], [65536, 116130, 0]])


def pillow(pixels, quality, subsampling="4:2:0"):
    """Bytes `(H, W, 3)` or `(H, W)` through Pillow's encoder and decoder."""
    file = BytesIO()
    chosen = {} if pixels.ndim == 2 else {"subsampling": PILLOW[subsampling]}
    Image.fromarray(pixels).save(file, format="JPEG", quality=quality, **chosen)
    return np.array(Image.open(file))


def quanta(quality):
    """The tables of the standard, scaled."""
    tables = np.full((2, 8, 8), 99)
    tables[0], tables[1, :4, :4] = LUMINANCE, CHROMINANCE
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((tables * percent + 50) // 100, 1, 255)


def integer_matrix():
    """The one-dimensional transform of libjpeg, at 13 bits: unit vectors through its butterfly."""
    rows = np.zeros((8, 8), dtype=np.int64)
    for j, x in enumerate(np.eye(8, dtype=np.int64)):
        s, d = x[:4] + x[:3:-1], x[:4] - x[:3:-1]
        rows[0, j], rows[4, j] = (s[0] + s[3] + s[1] + s[2]) << 13, (s[0] + s[3] - s[1] - s[2]) << 13
        common = (s[1] - s[2] + s[0] - s[3]) * 4433
        rows[2, j], rows[6, j] = common + (s[0] - s[3]) * 6270, common - (s[1] - s[2]) * 15137
        a, b, c, e = d[3], d[2], d[1], d[0]
        z1, z2, z5 = (a + e) * -7373, (b + c) * -20995, (a + c + b + e) * 9633
        z3, z4 = (a + c) * -16069 + z5, (b + e) * -3196 + z5
        rows[7, j], rows[5, j] = a * 2446 + z1 + z3, b * 16819 + z2 + z4
        rows[3, j], rows[1, j] = c * 25172 + z2 + z3, e * 12299 + z1 + z4
    return rows


M = integer_matrix()


def shifted(x, bits):
    """Division by a power of two, half rounded up."""
    return (x + (1 << (bits - 1))) >> bits


def coded(plane, steps, kind):
    """Whole blocks less 128 there and back, before the clamp."""
    height, width = plane.shape
    blocks = plane.reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2)
    if kind == "integers":
        rows = shifted(blocks.astype(np.int64) @ M.T, 11)
        c = shifted(M @ rows, 15)
        d = 8 * steps
        c = np.sign(c) * ((np.abs(c) + d // 2) // d) * steps
        blocks = shifted(shifted(M.T @ c, 11) @ M, 18)
    else:
        c = dctn(blocks, axes=(2, 3), norm="ortho") / steps
        if kind == "cubic":
            c = np.rint(c) + (c - np.rint(c)) ** 3
        blocks = idctn(c * steps, axes=(2, 3), norm="ortho")
    return blocks.swapaxes(1, 2).reshape(height, width)


def whole_blocks(plane):
    """Continued with the last value to the right and below."""
    return np.pad(plane, [(0, -n % 8) for n in plane.shape], mode="edge")


def halved(plane, factors, integers):
    """Chrominance as it is stored, before it is continued below."""
    (tall, wide), (height, width) = factors, plane.shape
    plane = np.pad(plane, ((0, -height % tall), (0, -width % (8 * wide))), mode="edge")
    sums = plane.reshape(-(-height // tall), tall, -1, wide).sum(axis=(1, 3))
    if not integers:
        return sums / (tall * wide)
    column = np.arange(sums.shape[1]) % 2
    bias = {1: 0, 2: column, 4: 1 + column}[tall * wide]
    return (sums + bias) // (tall * wide)


def enlarged(plane, factors, size, integers):
    """Chrominance for each pixel, by triangles."""
    (tall, wide), (rows, columns) = factors, plane.shape
    y, x = (np.arange(n) for n in size)
    if wide == 1 or columns <= 2:
        return plane[y // tall][:, x // wide]
    s, scale = plane[y // tall], 4
    if tall == 2:
        s, scale = 3 * s + plane[np.clip(y // 2 + 2 * (y % 2) - 1, 0, rows - 1)], 16
    z = 3 * s[:, x // 2] + s[:, np.clip(x // 2 + 2 * (x % 2) - 1, 0, columns - 1)]
    bias = np.where(x % 2, 7, 8) if tall == 2 else np.where(x % 2, 2, 1)
    return (z + bias) // scale if integers else z / scale


class Trip:
    """Levels `(H, W, 3)` there and back.

    Parameters
    ----------
    levels : ndarray
        From 0; larger ones than 255 saturate.
    quality, subsampling
        As of the defence.
    kind : {"integers", "none", "cubic"}
        What is rounded: all, nothing, or the coefficients, by the cubic.
    """

    def __init__(self, levels, quality, subsampling, kind):
        factors, integers, steps = SUBSAMPLINGS[subsampling], kind == "integers", quanta(quality)
        self.size = levels.shape[:2]
        self.open_in = levels <= 255
        rgb = np.minimum(levels, 255)
        rgb = np.rint(rgb).astype(np.int64) if integers else rgb
        y, cb, cr = np.moveaxis(rgb @ RGB_TO_YCC.T, -1, 0)
        if integers:
            y, cb, cr = shifted(y, 16), (cb + 32767) >> 16, (cr + 32767) >> 16
        else:
            y, cb, cr = y / 65536, cb / 65536, cr / 65536
        samples = [coded(whole_blocks(y - 128), steps[0], kind)[: self.size[0], : self.size[1]]]
        for plane in (cb, cr):
            small = halved(plane, factors, integers)
            rows = small.shape[0]
            columns = -(-self.size[1] // factors[1])
            samples.append(coded(whole_blocks(small), steps[1], kind)[:rows, :columns])
        top = 127.5 if kind == "none" else 127  # only rounding takes the largest chrominance, 127.5, to 127
        self.open_samples = [(s >= -128 - 1e-9) & (s <= top + 1e-9) for s in samples]
        light, *colours = (np.clip(s, -128, top) for s in samples)
        cb, cr = (enlarged(c, factors, self.size, integers) for c in colours)
        products = np.stack([np.zeros_like(cb), cb, cr], axis=-1) @ YCC_TO_RGB.T
        rgb = (light + 128)[..., None] + (shifted(products, 16) if integers else products / 65536)
        self.before = rgb
        self.out = np.clip(rgb, 0, 255)
