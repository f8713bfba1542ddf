"""Draws and labels on the arrays of a framework: those of NumPy for the same seed, wherever they are made."""

import warnings
from contextlib import ExitStack

import numpy as np
import pytest

from preshield import (
    Chain,
    Cutout,
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    JpegCompression,
    LabelSmoothing,
    MajorityVote,
    Mixup,
)
from preshield._core.arithmetic import descent
from preshield._core.arithmetic.draws import NativeDraws, below, bounds, signed
from preshield._core.draws import Draws
from preshield._core.kernels.threefry import quantiles
from preshield._core.labels import class_rows, class_rows_anywhere
from preshield._core.random import FROZEN
from preshield.frameworks.native import seed_of, source_of
from tests.cases import ALL, Case, images
from tests.threefry import words

STAGES = [
    GaussianAugmentation(0.1, ratio=0.5, clip_values=(0, 1)),
    LabelSmoothing(num_classes=3),
    Chain([Cutout(2), GaussianAugmentation(0.1, False)]),
    Mixup(3),
]
CASES = [
    case
    for case in [*ALL, Case(Chain, "draws and labels", {"defences": STAGES}, images())]
    if (made := case.make()).stochastic or made._changes_labels
    if made._natively(case.sample.shape, case.sample.dtype) is not None
]
# Programs of JAX take seconds to compile; the contract has one of each defence.
JITTED = ["LabelSmoothing-classes", "Chain-draws and labels"]
# Shares are exponentials, and sums and products are fused or taken in another order.
ROUNDED = {"float32": {"rtol": 2e-6, "atol": 2e-6}, "float64": {"rtol": 1e-12, "atol": 1e-12}}
KEYS = [(0x9ABCDEF0, 0xFEDCBA98), (2**32 - 1, 1)]
NUMBERS = np.array([0, 5, 2**32 - 1, 2**31], np.uint32)
X = np.random.default_rng(0).random((6, 4, 5, 3), dtype=np.float32)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, **ROUNDED[np.asarray(expected).dtype.name])


def labels_of(case):
    defence, count = case.make(), len(case.sample)
    if not defence._changes_labels:
        return None
    if any(kind in str(case) for kind in ("one-hot", "Chain-labels", "Chain-shapes")):
        return np.eye(3, dtype=np.float32)[np.arange(count) % 3]
    return np.arange(count) % 3


def namespaces():
    strict = pytest.importorskip("array_api_strict")
    torch = pytest.importorskip("torch")
    jax = pytest.importorskip("jax")
    from array_api_compat import torch as xp

    return (strict, strict.asarray), (xp, torch.from_numpy), (jax.numpy, jax.numpy.asarray)


def through_namespace(defence, x, y, xp, array):
    """On an array that was made of `x`."""
    seed = seed_of(defence, len(x), addressed=False)
    source = source_of(defence._seed_words, seed, None, array, xp, lambda: xp.asarray(quantiles()))
    return defence._natively(x.shape, x.dtype)(array, xp, None if y is None else xp.asarray(y), source)


# The generator


@pytest.mark.parametrize("key", KEYS)
def test_words_are_those_of_the_paper_and_of_jax(key):
    pytest.importorskip("jax")
    from jax.extend import random

    expected = np.stack([words(key, sample, 7, first=6) for sample in NUMBERS]).astype(np.uint32)
    pairs = np.arange(3, 7, dtype=np.uint32)
    of_jax = [random.threefry2x32_p.bind(*np.uint32(key), pairs, np.full(4, n, np.uint32)) for n in NUMBERS]
    np.testing.assert_array_equal([np.stack(pair, axis=1).ravel()[:7] for pair in of_jax], expected)
    numbers = NUMBERS.view(np.int32)
    for xp, made in namespaces():
        # The seed as numbers, and as an array of a graph.
        for seed in ([signed(word) for word in key], made(np.array(key, np.uint32).view(np.int32))):
            if xp.__name__ == "array_api_strict" and not isinstance(seed, list):
                continue  # it is known outside of graphs, and numbers of NumPy warn when they wrap
            found = NativeDraws(seed, made(numbers), xp, None, first=6).words(7)
            np.testing.assert_array_equal(np.asarray(found).view(np.uint32), expected)


def some_values(draws, x):
    """Of each kind; one draws after the other."""
    size, exact = (4, 3, 5), {"dtype": "float32"} if isinstance(draws, Draws) else {}
    found = [draws.random(4, "float32"), draws.standard_normal(size, **exact), draws.order()]
    found += [draws.integers(-2, span - 2, size) for span in (3, 2**31 - 1)]
    found += [draws.renumbered(2).random(2, "float32")]
    return found, [draws.shares(alpha, 3, x) for alpha in (0.02, 7.0)]


def test_values_are_those_of_numpy():
    key, x = np.array(KEYS[0], np.uint32), np.zeros(1, np.float32)
    expected, shares = some_values(Draws(key, NUMBERS), x)
    for xp, made in namespaces():

        def found(key, x, xp=xp, made=made):
            draws = NativeDraws(key, made(NUMBERS.view(np.int32)), xp, lambda: made(quantiles()))
            return some_values(draws, x)

        if xp.__name__ == "jax.numpy":
            jax = pytest.importorskip("jax")
            values, parts = jax.jit(found)(key.view(np.int32), x)
        else:
            values, parts = found([signed(word) for word in key.tolist()], made(x))
        for value, of_numpy in zip(values, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(value), of_numpy)
        np.testing.assert_allclose(np.stack([np.asarray(p) for p in parts]), shares, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("limit", [0, 1, 2**31 - 1, 2**31, 2**32])
def test_words_below_a_limit(limit):
    """As numbers without a sign; of a certainty, all of them."""
    words = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    np.testing.assert_array_equal(below(words.view(np.int32), bounds(limit)), words < np.uint64(limit))


def test_what_numpy_alone_draws_is_refused():
    draws = NativeDraws([0, 0], np.zeros(1, np.int32), np, None)
    with pytest.raises(ValueError, match=r"`rng\.dirichlet` exists in NumPy alone"):
        draws.dirichlet([1, 1])
    with pytest.raises(ValueError, match="`dtype` must be 'float32'"):
        draws.random(1, "float64")


# The same draw as NumPy's


class HostJpeg(JpegCompression):
    """What NumPy alone computes."""

    def _arithmetic(self, shape, dtype):
        return None


@pytest.mark.parametrize("case", CASES, ids=str)
def test_data_labels_and_gradients_in_torch(case):
    torch = pytest.importorskip("torch")
    from array_api_compat import torch as xp

    for dtype in (np.float32, np.float64):
        x, y, defence = case.sample.astype(dtype), labels_of(case), case.make()
        with defence.frozen(3):
            expected, labels = defence(x, y)
            grad = np.random.default_rng(0).normal(size=expected.shape).astype(expected.dtype)
            pulled = defence.estimate_gradient(x, grad)
            tensor = torch.tensor(x, requires_grad=True)
            out, relabelled = through_namespace(defence, x, y, xp, tensor)
        assert_close(out.detach(), expected)
        assert out.detach().numpy().dtype == expected.dtype
        if y is not None:
            np.testing.assert_allclose(relabelled, labels, atol=1e-6)
            assert relabelled.numpy().dtype == labels.dtype
        if defence.domains != ("labels",):
            out.backward(torch.tensor(grad))
            np.testing.assert_allclose(tensor.grad, pulled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if str(case) in JITTED], ids=str)
def test_data_labels_and_gradients_in_jax(case):
    jax = pytest.importorskip("jax")
    x, y, defence = case.sample.astype(np.float32), labels_of(case), case.make()
    with defence.frozen(3):
        expected, labels = defence(x, y)
        grad = np.random.default_rng(0).normal(size=expected.shape).astype(np.float32)

        @jax.jit
        def step(x, y, grad):
            return *defence(x, y), defence.estimate_gradient(x, grad)

        out, found, pulled = step(x, y, grad)
        assert_close(pulled, defence.estimate_gradient(x, grad))
    assert_close(out, expected)
    if y is not None:
        np.testing.assert_allclose(found, labels, atol=1e-6)
        assert found.dtype == (labels.dtype if labels.dtype.kind == "f" else np.int32)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_standard_is_enough(case):
    strict = pytest.importorskip("array_api_strict")
    x, y, defence = case.sample, labels_of(case), case.make()
    with defence.frozen(3):
        expected, labels = defence(x, y)
        out, found = through_namespace(defence, x, y, strict, strict.asarray(x))
    assert_close(np.asarray(out), expected)
    assert y is None or np.abs(np.asarray(found) - labels).max() < 1e-6


def test_labels_that_are_no_classes():
    """NumPy refuses them; a graph does not look."""
    strict = pytest.importorskip("array_api_strict")
    for labels in ([0, 3], [-1, 0], [0.5, 1], [1, 0, 2]):
        y = np.array(labels)
        rows, dtype = class_rows_anywhere(strict.asarray(y), strict, 3)
        legal = (y % 1 == 0) & (y >= 0) & (y < 3)
        assert dtype == (strict.float64 if y.dtype == float else strict.float32)
        np.testing.assert_array_equal(np.isnan(np.asarray(rows)).all(axis=1), ~legal)
        np.testing.assert_array_equal(np.asarray(rows)[legal], class_rows(y[legal], 3))
    for y, message in (
        (np.zeros(2), "class indices .N,. need `num_classes`"),
        (np.zeros((2, 2, 2)), "shape"),
    ):
        with pytest.raises(ValueError, match=message):
            class_rows_anywhere(strict.asarray(y), strict, None)


def test_jax_keeps_one_program_for_equal_draws():
    """Whatever the defence has drawn since; of other parameters, another one."""
    jax = pytest.importorskip("jax")
    from preshield.frameworks.jax import _program

    drawn, before = GaussianAugmentation(0.11, augmentation=False), _program.cache_info().misses
    for sigma, programs in ((0.11, 1), (0.11, 1), (0.12, 2)):
        for noise in (drawn.set_params(sigma=sigma), GaussianAugmentation(sigma, augmentation=False)):
            jax.make_jaxpr(noise.transform)(X)
            assert _program.cache_info().misses == before + programs
        drawn.transform(X)


# Nothing is fetched, and nothing is sent


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch_stays_on_the_device(case, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(descent, "repeated", lambda step, state, times: step(state))  # all are alike
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Log(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            out = op(*args, **(kwargs or {}))
            places = {t.device.type for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)}
            assert places == {"meta"}, op
            return out

    x = torch.empty(case.sample.shape, device="meta", requires_grad=True)
    y, defence = labels_of(case), case.make()
    meta = None if y is None else torch.tensor(y).to("meta")
    with Log(), warnings.catch_warnings(action="error"):
        out, labels = defence(x, meta)
        if defence.domains != ("labels",):
            out.sum().backward()
            assert defence.estimate_gradient(x, out).shape == x.shape
    expected, of_numpy = case.make()(case.sample, y)
    assert out.shape == expected.shape
    if y is not None:
        assert (labels.device.type, labels.shape) == ("meta", of_numpy.shape)
        # Labels on the host stay there, and have the same draw.
        with defence.frozen(5):
            _, labels = defence(x, y)
            np.testing.assert_array_equal(labels, defence(np.zeros(x.shape, np.float32), y)[1])


def test_an_index_on_a_device():
    torch = pytest.importorskip("torch")
    noise, x = GaussianAugmentation(augmentation=False, rng=0), torch.empty(6, 2, device="meta")
    for index in (3, np.arange(6), torch.arange(6), torch.arange(6, device="meta")):
        assert noise.transform(x, index=index).shape == x.shape
    for index in (
        torch.empty(5, dtype=torch.int64, device="meta"),
        torch.empty(6, device="meta"),
        [1, 2],
        -1,
    ):
        with pytest.raises(ValueError, match="`index` must be the number"):
            noise.transform(x, index=index)
    with pytest.raises(ValueError, match="`index` must be left out for"):
        GaussianAugmentation().transform(x, index=torch.arange(6, device="meta"))


def test_the_views_of_a_vote_stay_on_the_device():
    torch = pytest.importorskip("torch")
    seen = []

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.empty(1, device="meta"))

        def forward(self, x):
            seen.append((x.device.type, tuple(x.shape)))
            return torch.eye(2)[[0, 1, 1]]

    vote = MajorityVote(Model(), [None, GaussianBlur(3), GaussianAugmentation(0.1, False)], min_votes=3)
    x = torch.empty(3, 6, 5, 3, device="meta")
    np.testing.assert_array_equal(vote.predict(x), [0, 1, 1])
    assert seen == 3 * [("meta", (3, 6, 5, 3))]
    with pytest.raises(ValueError, match=r"`views\[0\]` must keep the number of samples"):
        MajorityVote(Model(), [GaussianAugmentation()], min_votes=1).votes(x)


# torch.compile


def compiled(function, **options):
    torch = pytest.importorskip("torch")
    return torch.compile(function, fullgraph=True, backend="aot_eager", **options)


def test_each_run_of_a_program_has_a_new_draw():
    torch = pytest.importorskip("torch")
    noise, x = GaussianAugmentation(0.1, augmentation=False, rng=3), torch.tensor(X)
    twice, fresh = (
        compiled(lambda x: (noise.transform(x), noise.transform(x))),
        GaussianAugmentation(0.1, augmentation=False, rng=3),
    )
    for _ in range(2):  # the seeds of the defence's own stream, in order
        for out in twice(x):
            np.testing.assert_array_equal(out, fresh.transform(X))
    for seed in (1, 2):
        with noise.frozen(seed):
            for out in twice(x):
                np.testing.assert_array_equal(out, noise.transform(X))
    with FROZEN.held(noise, 4, [9, 2, 5, 7, 0, 1]):  # as an evaluation numbers samples
        expected, (out, _) = noise.transform(X), twice(x)
    np.testing.assert_array_equal(out, expected)


def test_the_backward_pass_of_a_program_has_the_draw_of_its_forward_pass():
    torch = pytest.importorskip("torch")
    noise, x = GaussianAugmentation(0.1, augmentation=False), torch.tensor(X, requires_grad=True)
    out = compiled(lambda x: noise.transform(x) ** 2)(x)
    out.sum().backward()
    torch.testing.assert_close((x.grad / 2) ** 2, out)


def test_programs_for_any_number_of_samples():
    torch = pytest.importorskip("torch")
    torch.compiler.reset()  # which else gives up on what many tests have compiled
    noise = GaussianAugmentation(0.1, augmentation=False)
    step = torch.compile(noise.transform, fullgraph=True, backend="eager")
    for count in (6, 4):
        x = torch.tensor(X[:count])
        torch._dynamo.mark_dynamic(x, 0)  # and the program is not made again
        with noise.frozen(2):
            np.testing.assert_array_equal(step(x), noise.transform(X[:count]))


def test_labels_alone_in_a_program():
    torch = pytest.importorskip("torch")
    smooth = LabelSmoothing(0.8, num_classes=4)
    x, y = torch.zeros(3, 2), torch.tensor([0, 3, 1])
    same, labels = compiled(smooth)(x, y)
    assert same is x
    np.testing.assert_array_equal(labels, smooth(None, y.numpy())[1])
    with pytest.raises(ValueError, match=r"`y` must have shape \(N, 4\)"):
        torch.compile(smooth, backend="eager")(x, torch.zeros(3, 5))


def test_index_in_a_program():
    torch = pytest.importorskip("torch")
    noise = GaussianAugmentation(0.1, augmentation=False, rng=3)
    step = torch.compile(lambda x, i: noise.transform(x, index=i), fullgraph=True, backend="eager")
    expected = noise.transform(X, index=7)
    for index in (7, torch.arange(7, 13)):
        np.testing.assert_array_equal(step(torch.tensor(X), index), expected)
    with pytest.raises(Exception, match="`index` must be left out for"):
        compiled(lambda x: GAUSSIAN_COPIES.transform(x, index=0))(torch.tensor(X))


GAUSSIAN_COPIES = GaussianAugmentation()


@pytest.mark.filterwarnings("ignore")  # torch's own
def test_recomputation_and_records():
    """A program that would repeat one draw, or a backward pass that would draw anew, is refused."""
    torch = pytest.importorskip("torch")
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.utils.checkpoint import checkpoint

    noise, x = GaussianAugmentation(0.1, augmentation=False), torch.tensor(X, requires_grad=True)

    class Model(torch.nn.Module):
        def forward(self, x):
            return noise.transform(x) ** 2

    model = Model()

    def again(x):
        return checkpoint(model, x, use_reentrant=False).sum()

    meta = torch.empty(X.shape, device="meta", requires_grad=True)
    with pytest.raises(RuntimeError, match="a recomputed forward pass would draw anew"):
        again(meta).backward()
    with pytest.raises(Exception, match=r"recomputed forward pass would draw anew|Backend not supported"):
        compiled(again)(x).backward()
    with pytest.raises(ValueError, match="would record one draw"):
        torch.export.export(model, (x,), strict=False)
    with pytest.raises(ValueError, match="would record one draw"):
        make_fx(model)(x)
    with noise.frozen(3):
        again(meta).backward()
        program, expected = torch.export.export(model, (x,), strict=True).module(), noise.transform(X) ** 2
    assert_close(program(x).detach(), expected)


# Transforms


@pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is deprecated:DeprecationWarning")  # torch calls it
def test_torch_vmap():
    """One draw for all samples must be meant; samples that have numbers have draws of their own."""
    torch = pytest.importorskip("torch")
    noise, x = GaussianAugmentation(0.1, augmentation=False, rng=3), torch.tensor(X)

    def one(sample, index=None):
        return noise.transform(sample[None], index=index)[0]

    for randomness in ("error", "different"):
        with pytest.raises(ValueError, match="randomness='same'"):
            torch.func.vmap(one, randomness=randomness)(x)
    with ExitStack() as frozen:
        for randomness in ("same", "error"):
            moved = torch.func.vmap(one, randomness=randomness)(x) - x
            torch.testing.assert_close(moved, moved[:1].expand_as(moved))
            frozen.enter_context(noise.frozen(1))

    def mapped(x, index):
        return torch.func.vmap(one)(x, index)

    expected = noise.transform(X, index=4)
    for vmapped in (mapped, compiled(mapped)):
        np.testing.assert_array_equal(vmapped(x, torch.arange(4, 10)), expected)
    alone = torch.compile(lambda x: torch.func.vmap(one)(x), fullgraph=True, backend="eager")  # noqa: PLW0108
    with noise.frozen(1):
        alone(x)
    with pytest.raises(ValueError, match="randomness='same'"):  # it is not frozen any more
        alone(x)
    slopes = torch.func.grad(lambda x: (noise.transform(x, index=4) ** 2).sum())(x)
    assert_close(slopes, 2 * expected)


def test_jax_transforms():
    jax = pytest.importorskip("jax")
    noise = GaussianAugmentation(0.1, augmentation=False, rng=3)
    expected = noise.transform(X, index=4)

    def one(sample, index):
        return noise.transform(sample[None], index=index)[0]

    assert_close(jax.jit(jax.vmap(one))(X, np.arange(4, 10)), expected)
    slopes = jax.jit(jax.grad(lambda x: (noise.transform(x, index=4) ** 2).sum()))(X)
    assert_close(slopes, 2 * expected)
    moved = jax.jit(jax.vmap(lambda sample: noise.transform(sample[None])[0]))(X) - X
    assert_close(moved, np.broadcast_to(moved[:1], moved.shape))  # one draw for all


def test_jax_calls_back_for_the_seed_alone():
    """And not for that, where samples have numbers and the stream is one integer."""
    jax = pytest.importorskip("jax")
    noise = GaussianAugmentation(0.1, augmentation=False, rng=3)
    chain = Chain([GaussianBlur(3), noise, Cutout(2, rng=0)])
    for defence in (noise, chain):
        for transform in (jax.jit, lambda f: jax.jit(jax.value_and_grad(lambda *a: f(*a).sum()))):
            addressed = transform(lambda x, i, d=defence: d.transform(x, index=i)).lower(X, 5).as_text()
            assert "callback" not in addressed
            drawn = transform(lambda x, d=defence: d.transform(x)).lower(X).as_text()
            calls = [line for line in drawn.splitlines() if "custom_call" in line and "callback" in line]
            assert len(calls) == 1
            assert f"tensor<{defence._seed_words + len(X)}xi32>" in calls[0]
    unnumbered = GaussianAugmentation(0.1, augmentation=False)
    assert "callback" in jax.jit(lambda x: unnumbered.transform(x, index=0)).lower(X).as_text()


def test_a_jitted_function_draws_when_it_runs():
    """What is frozen at that time counts, not what was frozen while it was traced."""
    jax = pytest.importorskip("jax")
    noise = GaussianAugmentation(0.1, augmentation=False, rng=3)
    with noise.frozen(0):
        step, numbered = jax.jit(noise.transform), jax.jit(lambda x: noise.transform(x, index=0))
        assert_close(step(X), noise.transform(X))
        numbered(X)
    for seed in (1, 2):
        with noise.frozen(seed):
            assert_close(step(X), noise.transform(X))
            assert_close(numbered(X), noise.transform(X, index=0))
    assert (step(X) != step(X)).any()
    assert_close(numbered(X), noise.transform(X, index=0))
    with FROZEN.held(noise, 4, [9, 2, 5, 7, 0, 1]):
        assert_close(step(X), noise.transform(X))


def test_jax_labels():
    jax = pytest.importorskip("jax")
    mixup, y = Mixup(3), np.array([0, 1, 2, 0, 1, 2])
    step = jax.jit(mixup.__call__)
    with mixup.frozen(1):
        for found, expected in zip(step(X, y), mixup(X, y), strict=True):
            assert_close(found, expected)
    with pytest.raises(ValueError, match="one label for each of the 6 samples"):
        step(X, y[:4])
    with pytest.raises(ValueError, match=r"`y` must have shape \(N, 3\)"):
        step(X, np.zeros((6, 2)))
    assert np.isnan(np.asarray(step(X, y + 1)[1])).any()


# Pulling a gradient back


def test_estimate_gradient_in_frameworks():
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    blur, grad = GaussianBlur(3), np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
    expected = blur.estimate_gradient(X, grad)
    rows = np.stack([grad, 2 * grad], axis=1)  # of two classes
    assert_close(compiled(blur.estimate_gradient)(torch.tensor(X), torch.tensor(grad)), expected)
    for defence in (blur, HostJpeg((0, 1), gradient="soft")):  # the second one by a callback
        expected = defence.estimate_gradient(X, grad)
        pulled = jax.jit(defence.estimate_gradient)(X, rows)
        assert_close(pulled, np.stack([expected, 2 * expected], axis=1))
    x = torch.empty(X.shape, device="meta")
    for kind in (torch.float32, torch.bfloat16, torch.float64):
        pulled = blur.estimate_gradient(x, torch.empty(rows.shape, dtype=kind, device="meta"))
        assert (pulled.shape, pulled.dtype, pulled.device.type) == (rows.shape, kind, "meta")
    assert blur.estimate_gradient(x.to(torch.uint8), x).dtype == torch.float32
    assert blur.estimate_gradient(x, torch.empty(6, 0, *X.shape[1:], device="meta")).shape[:2] == (6, 0)
    for pull, given in ((jax.jit(blur.estimate_gradient), X), (blur.estimate_gradient, x)):
        with pytest.raises(ValueError, match="`grad` must have the shape"):
            pull(given, given[:, 1:])
    assert (
        GaussianAugmentation().estimate_gradient(x, torch.empty(12, 4, 5, 3, device="meta")).shape == x.shape
    )


def test_a_gradient_through_numpy_is_told_once():
    torch = pytest.importorskip("torch")
    x = torch.empty(1, 8, 8, 3, device="meta")

    class Slow(HostJpeg):
        """Of its own, since the warning comes once for a class."""

    for times in (1, 0):
        with (
            warnings.catch_warnings(record=True, action="always") as caught,
            pytest.raises(ValueError, match="must be dense and hold values"),
        ):
            Slow((0, 1)).estimate_gradient(x, x)
        assert len(caught) == times


# Hooks of others


class Scaled(GaussianAugmentation):
    """Another draw, for which nothing native is written."""

    def _draw(self, x, rng):
        return super()._draw(x, rng)


class Renamed(Mixup):
    def _transform_labels(self, y, draw):
        return super()._transform_labels(y, draw)


def test_what_a_subclass_draws_is_not_passed_by():
    x = images()
    assert Scaled()._natively(x.shape, x.dtype) is None
    assert Renamed(2)._natively(x.shape, x.dtype) is None
    assert Chain([FeatureSqueezing((0, 1)), Scaled()])._natively(x.shape, x.dtype) is None
