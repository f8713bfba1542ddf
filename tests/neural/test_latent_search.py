"""The search for latents, with a generator in closed form."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from preshield.neural.latent_search import nearest_latents


class Bowls:
    """Errors `(z - t)**2 * (z + t)**2 + tilt * (z - t)**2`: a valley near the target t, and one near -t."""

    latent_shape = (1,)

    def __init__(self, tilt=0.1):
        self.tilt = tilt
        self.asked, self.points = [], []

    def errors(self, targets):
        def errors(latents, numbers):
            self.asked.append(np.sort(numbers))
            self.points.append(latents[:, 0])
            z, t = latents[:, 0], targets[numbers, 0]
            value = (z - t) ** 2 * (z + t) ** 2 + self.tilt * (z - t) ** 2
            grad = 4 * z * (z - t) * (z + t) + 2 * self.tilt * (z - t)
            return value.astype(np.float32), grad[:, None].astype(np.float32)

        return errors


TARGETS = np.array([[1.0], [2.0], [1.5], [0.8]])


def starts_at(*values):
    def starts(rows):
        return np.broadcast_to(np.reshape(values, (1, -1, 1)), (rows.stop - rows.start, len(values), 1))

    return starts


@pytest.mark.parametrize("method", ["L-BFGS-B", "Adam"])
def test_the_best_start_of_each_image(method):
    search = SimpleNamespace(method=method, max_iter=300)
    wrong = nearest_latents(Bowls(), TARGETS, starts_at(-1.2), **vars(search))
    assert (wrong < 0).all()  # in the valley in which it started
    found = nearest_latents(Bowls(), TARGETS, starts_at(-1.2, 1.1, -0.5), **vars(search))
    assert found.dtype == np.float32
    assert found.shape == (4, 1)
    assert_allclose(found, TARGETS, atol=2e-3)
    each = [nearest_latents(Bowls(), TARGETS, starts_at(z), **vars(search)) for z in (-1.2, 1.1, -0.5)]
    errors = [Bowls().errors(TARGETS)(z, np.arange(4))[0] for z in each]
    assert_allclose(Bowls().errors(TARGETS)(found, np.arange(4))[0], np.min(errors, axis=0), atol=1e-6)


@pytest.mark.parametrize("method", ["L-BFGS-B", "Adam"])
def test_the_method_and_the_number_of_steps_are_honoured(method):
    bowls = Bowls()
    nearest_latents(bowls, TARGETS, starts_at(1.2), method=method, max_iter=1)
    down = np.sign(TARGETS[:, 0] - 1.2)
    # The first step of Adam is 0.3 long; the first trial of L-BFGS is of length 1.
    assert_allclose(bowls.points[1], 1.2 + (0.3 if method == "Adam" else 1) * down, rtol=1e-5)
    if method == "Adam":
        assert len(bowls.asked) == 2


def test_a_search_ends_where_the_gradient_is_within_the_tolerance():
    bowls = Bowls()
    gradient = bowls.errors(TARGETS)(np.full((4, 1), 1.001), np.arange(4))[1]
    for tolerance, searched in ((np.abs(gradient[0]) * 1.01, 3), (np.abs(gradient[0]) * 0.99, 4)):
        bowls.asked.clear()
        nearest_latents(bowls, TARGETS, starts_at(1.001), tolerance=float(tolerance[0]), max_iter=1)
        assert len(bowls.asked[1]) == searched


def test_a_search_does_not_look_for_less_than_single_precision_can_tell():
    points = []

    class Uphill:  # whichever way
        def errors(self, targets):
            def errors(latents, numbers):
                points.append(abs(latents[0, 0]))
                return 4 + 100 * np.abs(latents[:, 0]), np.full_like(latents, -3)

            return errors

    nearest_latents(Uphill(), TARGETS[:1], starts_at(0.0))
    # 3 is what each unit of the step promises, 4 the error: less than 3e-5 of it is noise, and 3e-3 is not.
    assert 1.2e-4 < 3 * min(points[1:]) < 1.2e-2


def test_blocks_of_images():
    bowls = Bowls()
    rows = []

    def starts(block):
        rows.append(block)
        return starts_at(0.9, -0.9)(block)

    found = nearest_latents(bowls, TARGETS, starts, batch_size=3)
    assert rows == [slice(0, 3), slice(3, 4)]
    assert_array_equal(bowls.asked[0], [0, 0, 1, 1, 2, 2])
    assert_allclose(found, nearest_latents(Bowls(), TARGETS, starts_at(0.9, -0.9)), atol=1e-5)


def test_searches_that_have_ended_cost_nothing():
    bowls = Bowls()
    nearest_latents(bowls, TARGETS[:2], starts_at(1.0, -3.0))  # the first is there
    assert_array_equal(bowls.asked[0], [0, 0, 1, 1])
    assert all(len(numbers) <= 3 for numbers in bowls.asked[1:])
    assert len(bowls.asked[-1]) < 3


def test_a_start_of_no_value_is_never_the_best():
    bowls = Bowls()
    found = nearest_latents(bowls, TARGETS, starts_at(np.nan, 1.0))
    assert_allclose(found, TARGETS, atol=2e-3)


def test_no_images():
    assert nearest_latents(Bowls(), TARGETS[:0], starts_at(1.0)).shape == (0, 1)
