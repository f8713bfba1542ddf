"""The contract: every rule over every defence, the checks themselves, and what bad input gets."""

import pickle
import re
from functools import partial
from inspect import signature

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import preshield
from preshield import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    LabelSmoothing,
    Preprocessor,
    SpatialSmoothing,
    ThermometerEncoding,
    TotalVarMin,
)
from preshield._core.variant import Variant
from preshield.testing import CHECKS, Subject, check_preprocessor
from tests.cases import ALL, CASES, features, images, videos

DROPPED = ("channel_index", "device_type")  # arguments that are accepted for the sake of old scripts
OF_DATA = [case for case in ALL if case.make().domains != ("labels",)]
OF_FRAMES = [
    case for case in OF_DATA if set(case.make().domains) == {"image", "video"} and case.make().layout is None
]


def one_hot(n):
    return np.eye(3, dtype=np.float32)[np.arange(n) % 3]


def integers(defence):
    return {name: value for name, value in defence.get_params().items() if type(value) is int}


# Every rule over every defence


def test_every_defence_has_its_case():
    public = (getattr(preshield, name) for name in preshield.__all__)
    classes = {c for c in public if isinstance(c, type) and not isinstance(c, Variant)}
    defences = {c for c in classes if issubclass(c, Preprocessor)} - {Preprocessor}
    assert set(CASES) == defences
    assert all(CASES.values())


def is_compared_in_jax(case):
    """Whether JAX computes it, which takes seconds to compile, and tests/test_native*.py compare that.

    Of those that draw or change labels there is one case of each here.
    """
    defence = case.make()
    if defence._natively(case.sample.shape, case.sample.dtype) is None:
        return False
    steady = not (defence.stochastic or defence._changes_labels)
    return steady or case.name != next(iter(CASES[case.defence]))


RULES = [
    pytest.param(case, check, id=f"{case}-{name}")
    for case in ALL
    for check in CHECKS
    if (name := check.__name__.removeprefix("_check_")) != "jax" or not is_compared_in_jax(case)
]


@pytest.mark.parametrize(("case", "check"), RULES)
def test_contract(case, check):
    check(Subject(case.make(), case.sample.copy(), one_hot(len(case.sample))))


@pytest.fixture
def numpy_alone(monkeypatch):
    """The frameworks have had their turn."""
    monkeypatch.setattr("preshield.testing.find_spec", lambda name: None)


@pytest.mark.usefixtures("numpy_alone")
@pytest.mark.parametrize("case", ALL, ids=str)
def test_check_preprocessor_leaves_the_defence_alone(case):
    defence, sample = case.make(), case.sample.copy()
    state = state_of(defence)
    check_preprocessor(defence, sample)
    assert state_of(defence) == state
    np.testing.assert_array_equal(sample, case.sample)


@pytest.mark.parametrize("case", [case for case in ALL if integers(case.make())], ids=str)
@pytest.mark.parametrize("kind", [float, np.float64])
def test_whole_numbers_of_a_floating_type_are_integers(case, kind):
    defence = case.make()
    floats = {name: kind(value) for name, value in integers(defence).items()}
    other = case.make().set_params(**floats)
    assert all(other.get_params()[name] is value for name, value in floats.items())
    one, two = (Subject(d, case.sample, one_hot(len(case.sample))) for d in (defence, other))
    expected = one.run(case.sample)
    np.testing.assert_array_equal(two.run(case.sample), expected)
    grad = one.gradient()
    np.testing.assert_array_equal(two.pull_back(case.sample, grad), one.pull_back(case.sample, grad))
    with defence.frozen(0), other.frozen(0):
        labels = [d(case.sample, one_hot(len(case.sample)))[1] for d in (defence, other)]
    np.testing.assert_array_equal(*labels)


def state_of(defence):
    for stage in leaves(defence):
        if stage._stream is not None:
            stage._stream._pickled = 0  # the copies of a stream are numbered
    return pickle.dumps(vars(defence))


def leaves(defence):
    return [leaf for stage in defence._stages for leaf in leaves(stage)] or [defence]


# A check that cannot fail is a defect: one broken defence for each rule


class Sound(Preprocessor):
    """Keeps every rule; the broken ones below change one thing."""

    domains = ("image", "features")
    gradient_kind = "exact"

    def __init__(self, factor=0.5, apply_fit=False, apply_predict=True):
        self.factor = factor
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict

    def _transform(self, x, draw):
        return x * self.factor

    def _gradient(self, x, grad, draw):
        return grad * self.factor


class NoDomain(Sound):
    domains = ("pictures",)


class OddGradientKind(Sound):
    gradient_kind = "approximate"


class Patched(Sound):
    pass


Patched.transform = lambda self, x: x


class TwoGradients(Sound):
    """A direct call has another gradient than a chain."""

    gradient_kind = "surrogate"

    def _estimate_gradient(self, x, grad):
        return 2 * super()._estimate_gradient(x, grad)


class ForgetsGradient(Sound):
    """What `__call__` doubles has not the gradient of the parent class."""

    gradient_kind = "exact"

    def __call__(self, x, y=None):
        x, y = super().__call__(x, y)
        return 2 * x, y


class DrawsInSecret(Sound):
    gradient_kind = "surrogate"

    def __call__(self, x, y=None):
        return x + np.random.random(), y


class Converts(Sound):
    def __init__(self, factor=0.5):
        self.factor = np.array(factor)


class Swallows(Sound):
    def __init__(self, factor=0.5, **kwargs):
        self.factor = factor


class Unpicklable(Sound):
    def __init__(self, factor=0.5):
        self.factor = factor
        self.helper = lambda x: x


class ForgetsShape(Sound):
    def _transform(self, x, draw):
        return x.repeat(2, axis=-1)


class Writes(Sound):
    def _transform(self, x, draw):
        x *= 2
        return x


class WritesWhatOthersNeed(Writes):
    """Right only where the batch is a copy."""

    takes = "copy"
    gradient_kind = "surrogate"


class OddFlag(Sound):
    ragged = None


class OddTakes(Sound):
    takes = True


class WritesGradient(Sound):
    def _gradient(self, x, grad, draw):
        grad *= self.factor
        return grad


class WritesLabels(Sound):
    def _transform_labels(self, y, draw):
        if y is not None:
            y[:] = 0
        return None if y is None else y.copy()


class WantsWriteableLabels(Sound):
    def _transform_labels(self, y, draw):
        if y is not None:
            y.setflags(write=True)
        return None if y is None else y.copy()


class ReadsMemory(Sound):
    def _transform(self, x, draw):
        return np.ndarray(x.shape, x.dtype, np.asarray(x).tobytes(order="A")) * self.factor


class WantsSamples(Sound):
    def _transform(self, x, draw):
        return x * self.factor / (x.size > 0 or 1 // x.size)


class WantsTwo(Sound):
    def _transform(self, x, draw):
        return x * self.factor if len(x) != 1 else np.stack([x, x])


class Widens(Sound):
    keeps_integers = True

    def _output_dtype(self, dtype):
        return np.dtype(np.float64)


class AcceptsNaN(Sound):
    def _checked(self, x, **how):
        return np.asarray(x)


class OfFrames(Sound):
    domains = ("image",)


class AcceptsAnyLayout(OfFrames):
    channels_first = False

    def _check_layout(self, shape, settled=None, name=None):
        return None


class SaysNoLayout(OfFrames):
    def _transform(self, x, draw):
        return x - x.mean(axis=-1, keepdims=True)


class SaysItsLayout(SaysNoLayout):
    layout = "NHWC"
    gradient_kind = "surrogate"


class IgnoresItsLayout(SaysNoLayout):
    def __init__(self, channels_first=False, layout=None):
        self.factor = 0.5
        self.channels_first = channels_first
        self.layout = layout


class ReadsItsLayout(IgnoresItsLayout):
    gradient_kind = "surrogate"

    def _transform(self, x, draw):
        return x - x.mean(axis=self._channel_axis(x.ndim), keepdims=True)


class ForgetsLayoutInGradient(ReadsItsLayout):
    gradient_kind = "exact"

    def _gradient(self, x, grad, draw):
        return grad - grad.mean(axis=-1, keepdims=True)


class LooksAround(Sound):
    def _transform(self, x, draw):
        return np.asarray(x, dtype=float) - x.max(axis=0, initial=0)


class MixesByDraw(Sound):
    stochastic = True

    def _draw(self, x, rng):
        return rng.permutation(len(x))

    def _transform(self, x, draw):
        return 0.5 * (x + x[draw])

    def _gradient(self, x, grad, draw):
        return 0.5 * (grad + grad[np.argsort(draw)])


class MixesGradients(Sound):
    stochastic = True

    def _draw(self, x, rng):
        return rng.standard_normal(x.shape)

    def _transform(self, x, draw):
        return x * draw

    def _gradient(self, x, grad, draw):
        return grad * (draw + x.max(initial=0))


class PullsBackOthers(Sound):
    gradient_kind = "surrogate"

    def _gradient(self, x, grad, draw):
        return grad - 0.1 * grad.sum(axis=0)


class MixesLabels(Sound):
    def _transform_labels(self, y, draw):
        return None if y is None else np.flip(y, axis=0).copy()


class GuessesForAllAtRandom(Sound):
    stochastic = True

    def _draw(self, x, rng):
        return rng.random(x.shape)

    def _transform(self, x, draw):
        return x * draw * (1 if x.max(initial=0) <= 1 else 1 / 255)

    def _gradient(self, x, grad, draw):
        return grad * draw * (1 if x.max(initial=0) <= 1 else 1 / 255)


class GuessesForAll(Sound):
    def _transform(self, x, draw):
        return x * (self.factor if x.max(initial=0) <= 1 else self.factor / 255)


class ForgetsRagged(Sound):
    ragged = True

    def _transform(self, x, draw):
        return x.copy() if x.dtype == object else x * self.factor


class Irreproducible(Sound):
    def __init__(self):
        self.factor = 0.5

    def _transform(self, x, draw):
        return x + np.random.default_rng().random()


class Nonlinear(Sound):
    def _gradient(self, x, grad, draw):
        return grad**2


class Affine(Sound):
    gradient_kind = "surrogate"

    def _gradient(self, x, grad, draw):
        return grad + 1


class WrongGradientShape(Sound):
    def _gradient(self, x, grad, draw):
        return grad.sum(axis=-1)


class NotIdentity(Sound):
    gradient_kind = "identity"


class HalfGradient(Sound):
    def _gradient(self, x, grad, draw):
        return grad * self.factor / 2


class CountsCalls(Sound):
    def __init__(self):
        self.factor = 1

    def _transform(self, x, draw):
        self.factor += 1
        return x * self.factor


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (NoDomain, r"Facts are .* `domains` must be a tuple of names among .*'pictures'"),
        (OddGradientKind, r"Facts are .* `gradient_kind` must be one of"),
        (OddFlag, r"Facts are .* `ragged` must be True or False, got None"),
        (OddTakes, r"Facts are .* `takes` must be one of .*'view', 'copy', 'unchecked'.*, got True"),
        (Patched, r"written in the body of a class.* `transform` was assigned after the class was made"),
        (TwoGradients, r"gives what a direct call gives.* gradient: values differ"),
        (ForgetsGradient, r"agrees with finite differences.* Along a random direction it is"),
        (DrawsInSecret, r"second call of a deterministic defence: values differ"),
        (Converts, r"very objects that were passed.* `factor`: passed .*, kept"),
        (Swallows, r"Unknown parameters are refused.* An unknown keyword .* was accepted"),
        (Unpicklable, r"It survives pickle and copy.deepcopy, also after use.* Can't pickle"),
        (ForgetsShape, r"Every way to call it.* changes_shape=False, but the shape is \(3, 8\)"),
        (Writes, r"ValueError: output array is read-only"),
        (WritesWhatOthersNeed, r"Read-only arrays work\. ValueError: output array is read-only"),
        (WritesGradient, r"ValueError: output array is read-only"),
        (WritesLabels, r"are never changed.* `y` was written to"),
        (WantsWriteableLabels, r"Read-only arrays work.* ValueError: cannot set WRITEABLE flag"),
        (ReadsMemory, r"The layout of memory makes no difference.* values differ"),
        (WantsSamples, r"A batch without samples gives .* ZeroDivisionError"),
        (WantsTwo, r"A batch of one sample works.* The shape is \(2, 1, 4\) instead of \(1, 4\)"),
        (Widens, r"The dtype of the result is .* float16 became float64 instead of float16"),
        (AcceptsNaN, r"NaN and infinity are refused.* was accepted"),
        (GuessesForAll, r"does not follow from the others.* sample 0 beside others .* values differ"),
        (LooksAround, r"A sample is defended alike.* sample 0 alone: values differ"),
        (GuessesForAllAtRandom, r"does not follow from the others.* sample 0 beside others .* values differ"),
        (PullsBackOthers, r"by the same draw, if there is one.* gradient of sample 0 with copies of it"),
        (MixesLabels, r"by the same draw, if there is one.* label 0 with copies of it for the others"),
        (MixesByDraw, r"by the same draw, if there is one.* sample 0 with copies of itself for the others"),
        (MixesGradients, r"by the same draw, if there is one.* gradient of sample 0 with copies of it"),
        (ForgetsRagged, r"may differ in length.* sample 0: values differ"),
        (Irreproducible, r"values differ by up to"),
        (Nonlinear, r"linear in the vector.* gradient of 2a - 3b: values differ"),
        (Affine, r"linear in the vector.* gradient of 2a - 3b: values differ"),
        (WrongGradientShape, r"A gradient is shaped as `x`|breaks a rule"),
        (NotIdentity, r"taken for the identity is passed on unchanged.* values differ"),
        (HalfGradient, r"agrees with finite differences.* Along a random direction it is"),
        (CountsCalls, r"values differ by up to"),
    ],
)
@pytest.mark.usefixtures("numpy_alone")
def test_a_broken_rule_is_found(broken, rule):
    x = np.random.default_rng(0).random((3, 4))
    check_preprocessor(Sound(), x)
    with pytest.raises(AssertionError, match=f"(?s)^{broken.__name__}.*breaks a rule. .*{rule}"):
        check_preprocessor(broken(), x)


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (
            AcceptsAnyLayout,
            r"plainly has another layout.* A batch \(2, 3, 40, 56\) of layout NCHW, not NHWC, was accepted",
        ),
        (
            SaysNoLayout,
            r"plainly has another layout.* depends on the axis of the channels, .*add that parameter",
        ),
        (IgnoresItsLayout, r"Each `layout` gives .* result with layout='NCHW': values differ"),
        (ForgetsLayoutInGradient, r"Each `layout` gives .* gradient with layout='NCHW': values differ"),
    ],
)
@pytest.mark.usefixtures("numpy_alone")
def test_a_broken_rule_about_layouts_is_found(broken, rule):
    for sound in (OfFrames, SaysItsLayout, ReadsItsLayout):
        check_preprocessor(sound(), images())
    with pytest.raises(AssertionError, match=f"(?s)^{broken.__name__}.*breaks a rule. .*{rule}"):
        check_preprocessor(broken(), images())


def test_check_preprocessor_wants_a_batch_and_a_defence():
    with pytest.raises(AssertionError, match="is not a Preprocessor"):
        check_preprocessor(lambda x: x, np.zeros((2, 2)))
    with pytest.raises(AssertionError, match=r"two samples or more, got shape \(1, 2\)"):
        check_preprocessor(Sound(), np.zeros((1, 2)))


# Shapes, dtypes and layouts of all kinds


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "gaps": lambda x: np.repeat(x, 2, axis=2)[:, :, ::2],
    "backwards": lambda x: np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
}
ANY_IMAGE = {
    "squeeze": FeatureSqueezing((0, 1), 3),
    "noise": GaussianAugmentation(0.1, False),
    "augment": GaussianAugmentation(0.1, ratio=0.4),
    "jpeg": JpegCompression((0, 1)),
    "median": SpatialSmoothing(3, gradient="exact"),
    "even median": SpatialSmoothing(4, clip_values=(0.1, 0.9)),
    "thermometer": ThermometerEncoding((0, 1), 3),
    "total variation": TotalVarMin(max_iter=1),
    "chain": Chain([SpatialSmoothing(2), JpegCompression((0, 1)), ThermometerEncoding((0, 1), 2)]),
}


@pytest.mark.parametrize("name", ANY_IMAGE)
@settings(max_examples=25)
@given(data=st.data())
def test_any_image_batch(name, data):
    defence = ANY_IMAGE[name]
    shape = data.draw(
        st.tuples(*[st.integers(0, 3)], *[st.integers(1, 9)] * 2, st.integers(1, 5)), label="shape"
    )
    dtype = data.draw(
        st.sampled_from(["f2", "f4", "f8", ">f4", ">f8", "u1", "i2", ">i4", "i8", "?"]), label="dtype"
    )
    layout = LAYOUTS[data.draw(st.sampled_from(sorted(LAYOUTS)), label="layout")]
    values = np.random.default_rng(0).random(shape)
    assume(not shape[2] == shape[3] > 4)  # which axis holds the channels would be a guess
    x = layout(np.rint(values).astype(dtype) if np.dtype(dtype).kind in "iu?" else values.astype(dtype))
    x.setflags(write=False)
    before = x.tobytes()
    plain = np.ascontiguousarray(x.astype(x.dtype.newbyteorder("=")))
    with defence.frozen(1):
        out, expected = defence.transform(x), defence.transform(plain)
        grad = np.random.default_rng(1).random(out.shape)
        pulled, expected_grad = defence.estimate_gradient(x, grad), defence.estimate_gradient(plain, grad)
    assert x.tobytes() == before
    assert out.dtype == expected.dtype == defence._output_dtype(x.dtype)
    assert out.dtype.isnative
    assert out.shape == defence._output_shape(shape)
    np.testing.assert_allclose(out.astype(float), expected.astype(float), rtol=1e-6, atol=1e-6)
    assert pulled.shape == shape
    np.testing.assert_allclose(pulled, expected_grad, rtol=1e-6, atol=1e-6)


# What bad input gets


@pytest.mark.parametrize("case", OF_DATA, ids=str)
def test_nan_and_infinity_are_counted(case):
    x = case.sample.astype(np.float32)
    x.reshape(-1)[[0, 5, 7]] = np.nan, np.nan, -np.inf
    expected = f"`x` must be finite, got 2 NaN and 1 infinite among {x.size} values; replace them first"
    with pytest.raises(ValueError, match=expected):
        case.make()(x, one_hot(len(x)))
    with pytest.raises(ValueError, match=expected):
        case.make().estimate_gradient(x, x)


def test_one_nan_in_a_large_batch_is_found():
    x = np.zeros((40, 32, 32, 3), dtype=np.float32)
    x[23, 4, 5, 1] = np.nan
    for view in (x, x[:, ::-1]):
        with pytest.raises(ValueError, match="got 1 NaN and 0 infinite among 122880 values"):
            FeatureSqueezing((0, 1)).transform(view)


@pytest.mark.parametrize("case", OF_FRAMES, ids=str)
def test_a_wrong_number_of_axes_is_refused(case):
    defence = case.make()
    image, video = {True: (" (NCHW)", " (NCFHW)"), False: (" (NHWC)", " (NFHWC)")}.get(
        defence._axes[0], ("", "")
    )
    wanted = re.escape(f"`x` must be a 4-D image batch{image} or a 5-D video batch{video}, got shape ")
    with pytest.raises(ValueError, match=rf"{wanted}\(6, 5, 3\); pass x\[None\].* for one image\.$"):
        defence.transform(np.zeros((6, 5, 3)))
    with pytest.raises(ValueError, match=rf"{wanted}\(6, 5\); pass x\[None, .* for one grey image, or "):
        defence.transform(np.zeros((6, 5)))
    with pytest.raises(ValueError, match=rf"{wanted}\(\)\.$"):
        defence.transform(np.float32(1))


@pytest.mark.parametrize(
    "defence",
    [
        SpatialSmoothing,
        TotalVarMin,
        partial(JpegCompression, (0, 1)),
        partial(ThermometerEncoding, (0, 1)),
    ],
    ids=["median", "total variation", "jpeg", "thermometer"],
)
@pytest.mark.parametrize("frames", [(), (2,)], ids=["images", "videos"])
def test_channels_in_the_other_place_are_refused(defence, frames):
    last, first = np.zeros((2, *frames, 8, 8, 3)), np.zeros((2, 3, *frames, 8, 8))
    with pytest.raises(
        ValueError, match="has its channels last, but channels_first=True; pass channels_first=False"
    ):
        defence(channels_first=True).transform(last)
    with pytest.raises(
        ValueError, match="has its channels first, but channels_first=False; pass channels_first=True"
    ):
        defence(channels_first=False).transform(first)
    assert len(defence(channels_first=True).transform(first)) == 2
    assert len(defence(channels_first=False).transform(last)) == 2


def test_values_outside_the_range_saturate():
    x = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 8, 8, 1)
    above, below = x * 3, x * 3 - 1
    jpeg, code = JpegCompression((0, 1)), ThermometerEncoding((0, 1), 4)
    np.testing.assert_array_equal(jpeg.transform(above), jpeg.transform(np.minimum(above, 1)))
    np.testing.assert_array_equal(code.transform(below), code.transform(np.clip(below, 0, 1)))
    with pytest.raises(
        ValueError, match=r"`x` must not be negative, got a minimum of -1\.0; undo any normalisation"
    ):
        jpeg.transform(below)


def with_last(x, value):
    """An object array, the last entry of which is `value`."""
    x = x.astype(object)
    x.flat[-1] = value
    return x


@pytest.mark.parametrize("case", OF_DATA, ids=str)
@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda x: with_last(x, None), "must be an array of numbers, got .* holds None of type NoneType"),
        (lambda x: with_last(x, "1"), "must be an array of numbers, got .* holds '1' of type str"),
        (lambda x: x.astype(complex), "must hold real numbers, got dtype complex128"),
        (lambda x: x.astype(str), "must hold real numbers, got dtype <U"),
        (lambda x: x.astype("m8[s]"), "must hold real numbers, got dtype timedelta64"),
    ],
    ids=["missing", "numerals", "complex", "text", "timedelta"],
)
def test_what_is_not_real_is_refused(case, convert, message):
    with pytest.raises(TypeError, match=f"`x` {message}"):
        case.make()(convert(case.sample), one_hot(len(case.sample)))


def test_samples_of_different_lengths_are_refused_where_they_make_no_sense():
    ragged = np.empty(2, dtype=object)
    ragged[:] = np.zeros(3), np.zeros(5)
    for defence in (FeatureSqueezing((0, 1)), GaussianAugmentation(), SpatialSmoothing()):
        with pytest.raises(
            TypeError, match="must be an array of numbers, got samples of 2 shapes; bring them to one shape"
        ):
            defence.transform(ragged)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_unknown_keywords_and_parameters_are_refused(case):
    with pytest.raises(TypeError, match="unexpected keyword argument 'strength'"):
        case.defence(**case.parameters, strength=1)
    defence = case.make()
    name = case.defence.__name__
    listed = ", ".join(p for p in signature(case.defence).parameters if p not in DROPPED)
    with pytest.raises(TypeError, match=f"{name} has no parameter 'bits', 'strength'; it has {listed}"):
        defence.set_params(apply_fit=True, strength=1, bits=2)
    assert defence.apply_fit is case.make().apply_fit
    with pytest.raises(TypeError, match="unexpected keyword argument 'epochs'"):
        defence.fit(case.sample, one_hot(len(case.sample)), epochs=3)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_set_params_checks_before_it_changes(case):
    defence = case.make()
    with pytest.raises(TypeError, match="`apply_predict` must be True or False, got 'no'"):
        defence.set_params(apply_fit=not defence.apply_fit, apply_predict="no")
    assert defence.apply_fit is case.make().apply_fit
    assert defence.set_params(apply_fit=True).apply_fit is True


@pytest.mark.parametrize(
    ("make", "legal"),
    [
        (lambda v: FeatureSqueezing((0, 1), gradient=v), "'identity', 'soft'"),
        (lambda v: SpatialSmoothing(gradient=v), "'identity', 'exact'"),
        (lambda v: ThermometerEncoding((0, 1), gradient=v), "'identity', 'surrogate', 'soft'"),
        (lambda v: TotalVarMin(solver=v), "'L-BFGS-B', 'CG', 'Newton-CG'"),
    ],
    ids=["squeeze", "median", "thermometer", "total variation"],
)
@pytest.mark.parametrize("value", ["Soft", None, 3, ["exact"]], ids=repr)
def test_a_wrong_option_lists_the_legal_ones(make, legal, value):
    with pytest.raises(ValueError, match=f"must be one of {legal}, got "):
        make(value)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, bool])
def test_integer_gradients_do_not_wrap(dtype):
    class Invert(Sound):
        def _gradient(self, x, grad, draw):
            return -grad

    x = np.zeros((2, 100))
    np.testing.assert_array_equal(Invert().estimate_gradient(x, np.ones((2, 100), dtype)), -1)
    copies = GaussianAugmentation(ratio=300.0)
    assert copies.estimate_gradient(x, np.ones((602, 100), dtype)).sum() == 60200


@pytest.mark.parametrize("case", OF_DATA, ids=str)
def test_a_gradient_that_does_not_fit_is_refused(case):
    defence, x = case.make(), case.sample
    with pytest.raises(
        ValueError,
        match=r"`grad` must have the shape .* of the output, or .* axis of classes .* got \(1, 2\)",
    ):
        defence.estimate_gradient(x, np.ones((1, 2)))
    with pytest.raises(TypeError, match="`grad` must hold real numbers, got dtype <U"):
        defence.estimate_gradient(x, np.full(x.shape, "a"))


@pytest.mark.parametrize("case", OF_DATA, ids=str)
def test_nested_lists_are_arrays(case):
    defence = case.make()
    with defence.frozen():
        expected = defence(case.sample.astype(float), one_hot(len(case.sample)))[0]
        out = defence(case.sample.astype(float).tolist(), one_hot(len(case.sample)))[0]
    np.testing.assert_array_equal(out, expected)


# The base class itself


def test_repr_shows_what_differs_from_the_defaults():
    assert repr(SpatialSmoothing()) == "SpatialSmoothing()"
    assert repr(JpegCompression((0, 1), 75)) == "JpegCompression(clip_values=(0, 1), quality=75)"
    array = (np.zeros(2), np.ones(2))
    assert repr(FeatureSqueezing(array)) == "FeatureSqueezing(clip_values=(array([0., 0.]), array([1., 1.])))"


def test_a_subclass_without_its_hook_says_so():
    class Bare(Preprocessor):
        domains = ("features",)

    class Random(Bare):
        stochastic = True

    with pytest.raises(NotImplementedError, match=r"Bare must write _transform\(x, draw\)"):
        Bare().transform(features())
    with pytest.raises(NotImplementedError, match=r"Random is stochastic and must write _draw\(x, rng\)"):
        Random().transform(features())


def test_a_view_returned_by_a_hook_is_copied():
    class Crop(Preprocessor):
        changes_shape = True

        def _transform(self, x, draw):
            return x[:, 1:-1]

        def _output_shape(self, shape):
            return (shape[0], shape[1] - 2, *shape[2:])

        def _gradient(self, x, grad, draw):
            return np.pad(grad, ((0, 0), (1, 1), (0, 0), (0, 0)))

    x = images()
    out = Crop().transform(x)
    out[:] = 7
    np.testing.assert_array_equal(x, images())


def test_a_view_of_a_ragged_sample_is_copied():
    class Pass(Preprocessor):
        domains = ("audio",)
        ragged = True

        def _transform(self, x, draw):
            return x

    samples = [np.zeros(3, np.float32), np.zeros((5, 2)), np.zeros(4, np.int16)]
    out = Pass().transform(samples)
    assert [sample.dtype for sample in out] == [np.float32, np.float64, np.float32]
    pulled = Pass().estimate_gradient(samples, samples)
    for sample, defended, gradient in zip(samples, out, pulled, strict=True):
        defended[:] = 7
        gradient[:] = 7
        assert not sample.any()


class Blacken(Preprocessor):
    """Write zeros to every other column."""

    takes = "copy"
    layout = "NHWC"

    def _transform(self, x, draw):
        self.seen = x
        out = x if x.flags.writeable else x.copy()
        out[:, :, ::2] = 0
        return out


def test_a_defence_that_takes_a_copy_gets_one_where_nobody_else_needs_the_batch():
    x, blacken = images(), Blacken()
    expected = np.where(np.arange(x.shape[2])[:, None] % 2, x, 0)
    out = blacken.transform(x)
    assert np.shares_memory(out, blacken.seen)  # and is not copied once more
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(x, images())
    check_preprocessor(Blacken(), x)


def test_a_defence_that_takes_a_copy_must_not_write_to_what_a_backward_pass_needs():
    x, blacken = images(), Blacken()
    out = Chain([blacken, Sound(2.0)]).transform(x)
    assert not blacken.seen.flags.writeable
    np.testing.assert_array_equal(out, np.where(np.arange(x.shape[2])[:, None] % 2, 2 * x, 0))
    np.testing.assert_array_equal(x, images())


class Doubled(Preprocessor):
    """Twice the batch, whose values are looked at on the way."""

    domains = ("features",)
    takes = "unchecked"
    gradient_kind = "exact"

    def __init__(self, clip_values=(0, 1)):
        self.clip_values = clip_values
        self.finite = None

    def _transform(self, x, draw):
        peak = np.abs(x).max(initial=0)
        self.finite = bool(np.isfinite(peak))
        self._check_seen(x, float(peak) if self.finite else None)
        return 2 * x

    def _gradient(self, x, grad, draw):
        return 2 * grad


class DoubledAgain(Doubled):
    """Looks at nothing itself."""

    def _transform(self, x, draw):
        self.finite = bool(np.isfinite(x).all())
        return 2 * x


class DoubledByChance(Doubled):
    """Of two numbers, one that is the same."""

    stochastic = True

    def __init__(self, rng=None):
        super().__init__()
        self.rng = rng


NOT_FINITE = r"`x` must be finite, got 1 NaN and 0 infinite among 12 values"


@pytest.mark.parametrize("call", ["transform", "__call__", "torch"])
def test_a_defence_that_takes_unchecked_values_refuses_them_as_others_do(call):
    x, double = features(), Doubled()
    check_preprocessor(Doubled(), x)
    x = x.copy().reshape(-1)[:12].reshape(3, 4)
    x[1, 2] = np.nan
    run = {
        "transform": double.transform,
        "__call__": double,
        "torch": lambda x: double(pytest.importorskip("torch").from_numpy(x)),
    }[call]
    with pytest.raises(ValueError, match=NOT_FINITE):
        run(x)
    assert double.finite is False  # found by itself
    double.finite = None
    with pytest.raises(ValueError, match=NOT_FINITE):
        double.estimate_gradient(x, x)
    with pytest.raises(ValueError, match=NOT_FINITE):
        DoubledAgain().transform(x)
    assert double.finite is None
    with pytest.warns(UserWarning, match=r"Doubled: .*range"):
        double.transform(np.full((3, 4), 255.0))


def test_no_seed_is_drawn_for_values_that_are_refused():
    x = np.full((3, 4), np.nan)
    rng = np.random.default_rng(0)
    pixels = (preshield.Cutout(2, rng=rng), preshield.PixelDeflection((0, 1), rng=rng))
    for defence in (DoubledByChance(rng=rng), *pixels):
        before = rng.bit_generator.state
        with pytest.raises(ValueError, match="`x` must be finite"):
            defence.transform(x if isinstance(defence, Doubled) else x.reshape(1, 3, 4, 1))
        assert rng.bit_generator.state == before


class Centre(Preprocessor):
    """Subtract the mean that was learned."""

    domains = ("features",)
    mean = None

    def _fit(self, x, y, *, weight=1.0):
        self.mean = weight * x.mean(axis=0)

    def _transform(self, x, draw):
        return x - self.mean


def test_a_defence_that_learns_is_fitted_first():
    defence = Centre()
    assert not defence.is_fitted
    assert defence.fit(features(), weight=0.5) is defence
    assert defence.is_fitted
    np.testing.assert_allclose(defence.transform(features()), features() - features().mean(axis=0) / 2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'wait'"):
        defence.fit(features(), wait=1)
    check_preprocessor(Centre(), features())
    assert SpatialSmoothing().is_fitted


def test_params_follow_from_the_constructor():
    assert FeatureSqueezing.params == ("clip_values", "bit_depth", "apply_fit", "apply_predict", "gradient")
    assert "channel_index" not in SpatialSmoothing.params
    assert Preprocessor.params == ()
    assert LabelSmoothing(0.7).get_params() == {
        "max_value": 0.7,
        "apply_fit": True,
        "apply_predict": False,
        "num_classes": None,
    }


def test_videos_are_defended_frame_by_frame():
    x = videos().astype(np.float32)
    for defence in (SpatialSmoothing(3), JpegCompression((0, 1))):
        frames = defence.transform(x.reshape(6, 6, 5, 3)).reshape(x.shape)
        np.testing.assert_array_equal(defence.transform(x), frames)
