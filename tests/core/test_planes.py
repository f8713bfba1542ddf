"""A kernel over the blocks of a batch: what it is given, and what becomes of its result."""

import numpy as np
import pytest

from preshield._core.planes import map_planes

SINGLE = np.dtype(np.float32)


@pytest.mark.parametrize(("axis", "step", "rows"), [(3, 2, (4, 10)), (1, 1, (4, 5)), (None, None, (4, 5, 2))])
def test_a_kernel_gets_blocks_in_its_own_types(monkeypatch, axis, step, rows):
    monkeypatch.setattr("preshield._core.threads.BLOCK_BYTES", 1)  # one entry in each block
    x = np.arange(3 * 4 * 5 * 2).reshape(3, 4, 5, 2)
    x = np.moveaxis(x, 3, 1) if axis == 1 else x
    types, seen = tuple(map(np.dtype, ("float32", "float64", "int64"))), []

    def double(out, whole, half, *rest):
        assert (out.dtype, whole.dtype, half.dtype) == types
        assert all(block.flags.c_contiguous and block.shape[1:] == rows for block in (out, whole, half))
        seen.append(rest)
        out[:] = whole + 2 * half

    out = np.empty(x.shape, np.float16)
    sources = np.asfortranarray(x.astype(">f8")), (x / 2)[::-1][::-1]
    kept = [source.copy() for source in sources]
    made = map_planes(double, out, *sources, dtypes=types, axis=axis)
    assert made is out
    np.testing.assert_array_equal(out, x + 2 * (x // 2))
    assert set(seen) == {() if step is None else (step,)}
    for source, before in zip(sources, kept, strict=True):
        np.testing.assert_array_equal(source, before)


@pytest.mark.parametrize(
    ("shape", "axis", "planes", "step"),
    [
        ((2, 5, 6, 3), 3, (2, 5, 18), 3),
        ((2, 4, 5, 6, 3), 4, (8, 5, 18), 3),
        ((2, 3, 5, 6), 1, (6, 5, 6), 1),
        ((2, 3, 4, 5, 6), 1, (24, 5, 6), 1),
        ((2, 4, 3, 5, 6), 2, (24, 5, 6), 1),
    ],
)
def test_channels_are_planes_or_interleaved(shape, axis, planes, step):
    x = np.arange(np.prod(shape), dtype=SINGLE).reshape(shape)
    seen = []

    def look(out, block, distance):
        assert distance == step
        seen.append(block)

    map_planes(look, np.empty(shape, SINGLE), x, dtypes=(SINGLE, SINGLE), axis=axis)
    assert np.concatenate(seen).shape == planes
    np.testing.assert_array_equal(np.concatenate(seen).ravel(), x.ravel())


@pytest.mark.parametrize("shape", [(0, 4, 5, 2), (3, 0, 5, 2), (3, 4, 5, 0)])
@pytest.mark.parametrize("axis", [None, 1, 3])
def test_nothing_is_run_on_an_empty_batch(shape, axis):
    out = np.empty(shape, SINGLE)
    assert map_planes(pytest.fail, out, out.copy(), dtypes=(SINGLE, SINGLE), axis=axis) is out


def test_a_source_without_a_type_is_refused():
    out = np.empty((1, 2), SINGLE)
    with pytest.raises(ValueError, match="shorter"):
        map_planes(lambda *blocks: None, out, out.copy(), dtypes=(SINGLE,))
