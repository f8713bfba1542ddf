"""Total variance minimisation in the span of the gradients, beside machines on whole planes."""

import numpy as np
import pytest
from skimage import data

from preshield._core.kernels.descent import STATE
from preshield._core.kernels.gradient_span import BAND, minimise_in_span
from preshield._core.kernels.total_variation import total_variation
from preshield._core.optimise import METHODS, minimise


def both(planes, dtype, *, method="L-BFGS-B", norm=2, scale=0.5, max_iter=10, tolerance=1e-5):
    """Where both end, the objective there, by the kernel of machines on planes, and what these found."""
    planes = np.ascontiguousarray(planes, dtype).astype(np.float64)
    mask = np.random.default_rng(1).random(planes.shape) < 0.3

    def objective(z, rows):
        value, grad = np.empty(len(z)), np.empty((len(z), *planes.shape[1:]))
        total_variation(value, grad, z.reshape(grad.shape), planes[rows], mask[rows], norm, scale)
        return value, grad.reshape(len(z), -1)

    flat = planes.reshape(len(planes), -1)
    expected = minimise(objective, flat, method=method, max_iter=max_iter, tolerance=tolerance)
    out, states = np.full(planes.shape, np.nan, dtype), np.zeros(len(planes), STATE)
    kind = METHODS.index(method)
    minimise_in_span(out, planes.astype(dtype), mask, states, norm, scale, kind, max_iter, tolerance)
    everyone, found = np.arange(len(planes)), out.reshape(flat.shape)
    values = [objective(x.astype(dtype).astype(np.float64), everyone)[0] for x in (found, expected.x)]
    return found, values, expected, states


def photographs(height, width):
    pictures = [
        picture[80 : 80 + height, 120 : 120 + width] for picture in (data.chelsea(), data.astronaut())
    ]
    return np.moveaxis(np.concatenate(pictures, axis=-1), -1, 0) / 255


@pytest.mark.parametrize("method", ["L-BFGS-B", "CG"])
@pytest.mark.parametrize(
    ("norm", "scale", "largest"), [(2, 0.5, 1), (2, 0.002, 255), (1, 0.5, 1), (1, 0.002, 255), (3, 0.5, 1)]
)
def test_it_ends_where_machines_on_planes_end(method, norm, scale, largest):
    planes = photographs(17, 23) * largest
    found, (value, theirs), expected, states = both(planes, np.float64, method=method, norm=norm, scale=scale)
    np.testing.assert_allclose(found, expected.x, atol=1e-9 * largest)
    assert (value <= theirs * (1 + 1e-10)).all()
    np.testing.assert_array_equal(states["evaluations"], expected.evaluations)


@pytest.mark.parametrize("method", ["L-BFGS-B", "CG"])
@pytest.mark.parametrize("scale", [0.5, 1e-5])
def test_single_precision(method, scale):
    """Also where so little moves that a sum with the pixels would lose most of its digits."""
    planes = photographs(32, 31)
    found, (value, theirs), expected, _ = both(planes, np.float32, method=method, scale=scale)
    np.testing.assert_allclose(found, expected.x, atol=3e-6)
    assert (value <= theirs * (1 + 1e-6)).all()


@pytest.mark.parametrize("shape", [(2 * BAND // 64 + 5, 64), (3, BAND + 1), (40, 1), (1, 50)])
def test_bands_meet(shape):
    """Several of them, the last one shorter; rows longer than a band; planes of one row or column."""
    planes = np.random.default_rng(0).random((2, *shape))
    found, _, expected, _ = both(planes, np.float64, max_iter=2)
    np.testing.assert_allclose(found, expected.x, atol=1e-12)


def test_planes_at_rest_stay_where_they_are():
    planes = photographs(9, 20)
    planes[0], planes[3] = 0.3, 0.0
    found, _, expected, states = both(planes, np.float32)
    np.testing.assert_array_equal(found[[0, 3]], planes[[0, 3]].reshape(2, -1).astype(np.float32))
    np.testing.assert_array_equal(states["evaluations"] == 1, [True, False, False, True, False, False])
    np.testing.assert_allclose(found, expected.x, atol=3e-6)


def test_a_flat_enough_gradient_ends_it():
    """The largest entry of a gradient in pixels decides, not one of its coordinates."""
    planes = photographs(16, 16)
    found, _, expected, states = both(planes, np.float64, tolerance=1.0)
    np.testing.assert_array_equal(states["iterations"], expected.iterations)
    assert (expected.iterations < 10).any()
    np.testing.assert_allclose(found, expected.x, atol=1e-9)
