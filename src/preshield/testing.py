"""The contract of a defence as a test suite that anybody can run on a subclass."""

import copy
import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from ._core.errors import ArgumentError
from ._core.generators import Generators
from ._core.layout import LAYOUTS, expected_layouts, kept_dtype, object_array
from ._core.overrides import wrote
from ._core.passes import Pass
from ._core.samples import sample_axes
from ._core.typing import Array, Dtype
from .chain import Chain
from .preprocessor import Preprocessor

__all__ = ["check_preprocessor"]

DOMAINS = ("image", "video", "audio", "features", "labels")
GRADIENT_KINDS = ("exact", "identity", "surrogate")
TAKES = ("view", "copy", "unchecked")
FLAGS = (
    "stochastic",
    "changes_shape",
    "optimises_at_test_time",
    "keeps_integers",
    "ragged",
    "apply_fit",
    "apply_predict",
)
DTYPES = (np.float16, np.float32, np.float64, ">f4", np.uint8, np.int64, ">i2", np.bool_)
SIDES = {"N": 2, "C": 3, "F": 24, "H": 40, "W": 56}  # of videos whose layout is plain
FINAL = (
    "__call__",
    "transform",
    "transform_one",
    "forward",
    "estimate_forward",
    "estimate_gradient",
    "fit",
    "frozen",
)


def check_preprocessor(defence: Preprocessor, sample: Any, y: Any = None) -> None:
    """Check that a defence keeps the contract of `Preprocessor`.

    Call it in the test of a subclass. Nothing but NumPy is needed; scikit-learn, torch, TensorFlow and JAX
    are checked where they are installed. The defence itself is left as it is: copies of it are checked.

    Parameters
    ----------
    defence : Preprocessor
        What to check. A defence that has something to learn is fitted to `sample` first.
    sample : array_like, shape (N, ...)
        A small numeric batch that it accepts, of two samples or more. Ties and values at the ends of
        `clip_values` are no obstacle.
    y : array_like, optional
        Labels of the batch; one-hot labels of three classes by default.

    Raises
    ------
    AssertionError
        If a rule is broken; the message names the defence, the rule, and what was seen.

    Notes
    -----
    The rules, in this order: the facts are of legal kinds; public methods are not assigned to a class;
    labels fit the batch; arrays of the caller are never changed nor handed back; read-only, non-contiguous,
    empty and single-sample batches work; the dtype of the result follows from that of the batch; NaN,
    infinity, complex numbers, text and a wrong number of dimensions are refused; numbers of Python's are
    numbers; a batch that plainly has another layout is refused, unless the class attribute `layout` states
    one or it makes no difference; each value of a parameter `layout` gives what moving the axes gives;
    samples do not see each other, nor take their range from each other; samples of different lengths work
    where the class says so; draws are reproducible; parameters are kept as passed, go through `set_params`,
    scikit-learn's `clone`, pickle and `copy.deepcopy`; gradients have the shape of the batch, take an axis
    of classes, are linear, and agree with finite differences where they are said to be exact; several
    threads may call at once; a chain of the defence alone and tensors of each framework give what NumPy
    gives, traced or not, with its gradient.

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import Preprocessor
    >>> from preshield.testing import check_preprocessor
    >>> class Halve(Preprocessor):
    ...     domains = ("image", "features")
    ...     gradient_kind = "exact"
    ...
    ...     def _transform(self, x, draw):
    ...         return x / 2
    ...
    ...     def _gradient(self, x, grad, draw):
    ...         return grad / 2
    >>> x = np.random.default_rng(0).random((3, 4))
    >>> check_preprocessor(Halve(), x)

    The gradient of this one is forgotten, so it is taken for the identity:

    >>> class Double(Preprocessor):
    ...     domains = ("image", "features")
    ...     gradient_kind = "exact"
    ...
    ...     def _transform(self, x, draw):
    ...         return 2 * x
    >>> check_preprocessor(Double(), x)
    Traceback (most recent call last):
        ...
    AssertionError: Double() breaks a rule. An exact gradient agrees with finite differences. ...
    """
    if not isinstance(defence, Preprocessor):
        raise AssertionError(
            f"{defence!r} is not a Preprocessor: derive its class from preshield.Preprocessor."
        )
    x = np.array(sample)
    if x.ndim < 1 or len(x) < 2:
        raise AssertionError(f"`sample` must be a batch of two samples or more, got shape {x.shape}.")
    labels = np.eye(3, dtype=np.float32)[np.arange(len(x)) % 3] if y is None else np.array(y)
    fitted = copy.deepcopy(defence)
    if not fitted.is_fitted:
        fitted.fit(x.copy(), labels.copy())
    for check in CHECKS:
        subject = Subject(copy.deepcopy(fitted), x.copy(), labels.copy())
        try:
            check(subject)
        except Exception as error:
            what = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            raise AssertionError(f"{defence!r} breaks a rule. {check.__doc__} {what}") from error


@dataclass
class Subject:
    """What a check works on."""

    defence: Preprocessor
    x: Array
    y: Array

    @property
    def of_labels(self) -> bool:
        """Whether the data pass through untouched."""
        return self.defence.domains == ("labels",)

    @property
    def gradient_kind(self) -> str:
        """What the gradient of this instance is: a parameter `gradient` may have chosen another one."""
        if wrote(type(self.defence), "estimate_gradient"):
            return self.defence.gradient_kind
        chosen = getattr(self.defence, "gradient", self.defence.gradient_kind)
        return chosen if chosen in GRADIENT_KINDS else "surrogate"

    def run(self, x: Any, seed: int = 0) -> Any:
        """The defended batch for one draw."""
        with self.defence.frozen(seed):
            return self.defence(x, self.labels_of(x))[0]

    def pull_back(self, x: Any, grad: Any, index: Any = None) -> Any:
        """The gradient for the same draw."""
        with self.defence.frozen(0):
            return self.defence.estimate_gradient(x, grad, index=index)

    @property
    def numbers_samples(self) -> bool:
        """Whether the draws know samples by number: those of methods that a class wrote do not."""
        d = self.defence
        try:
            with d.frozen(0):
                d(self.x, self.y, index=0)
        except ArgumentError as error:
            if "`index` must be left out" in str(error):
                return False
            raise
        return True

    def labels_of(self, x: Any) -> Array:
        """Labels for the first samples."""
        return self.y[: len(x)]

    def gradient(self, *axes: int, dtype: Any = np.float64) -> Array:
        """Some gradient of the output, with further axes after the first."""
        shape = self.run(self.x).shape
        values = np.random.default_rng(0).standard_normal((shape[0], *axes, *shape[1:]))
        return values.astype(dtype)


def _require(condition: Any, seen: str) -> None:
    if not condition:
        raise AssertionError(seen)


def _require_equal(actual: Any, expected: Array, what: str, tolerance: float = 0.0) -> None:
    actual = np.asarray(actual)
    _require(actual.shape == expected.shape, f"{what}: shape {actual.shape} instead of {expected.shape}.")
    same = np.allclose(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)
    _require(same, f"{what}: values differ by up to {_distance(actual, expected):.3g}.")


def _distance(a: Array, b: Array) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).max(initial=0))


@contextmanager
def _silence() -> Iterator[None]:
    """Without the warnings of a defence that is given data outside of its range on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _require_refusal(kind: type[Exception], what: str, function: Callable[..., Any], *args: Any) -> str:
    """The message with which a call is refused."""
    try:
        function(*args)
    except kind as error:
        return str(error)
    raise AssertionError(f"{what} was accepted.")


# The class


def _check_facts(s: Subject) -> None:
    """Facts are class attributes of legal kinds."""
    d: Any = s.defence
    domains = isinstance(d.domains, tuple) and d.domains and set(d.domains) <= set(DOMAINS)
    _require(domains, f"`domains` must be a tuple of names among {DOMAINS}, got {d.domains!r}.")
    for name, legal in (("gradient_kind", GRADIENT_KINDS), ("takes", TAKES)):
        value = getattr(d, name)
        _require(value in legal, f"`{name}` must be one of {legal}, got {value!r}.")
    for name in FLAGS:
        value = getattr(d, name)
        _require(isinstance(value, bool | np.bool_), f"`{name}` must be True or False, got {value!r}.")
    _require(isinstance(d.paper, str), f"`paper` must be a string, got {d.paper!r}.")
    attacks = isinstance(d.known_attacks, tuple) and all(isinstance(a, str) for a in d.known_attacks)
    _require(attacks, f"`known_attacks` must be a tuple of strings, got {d.known_attacks!r}.")
    if d.output_dtype is not None:
        np.dtype(d.output_dtype)


def _check_final(s: Subject) -> None:
    """Public methods are those of the base class, or written in the body of a class."""
    for name in FINAL:
        method = getattr(type(s.defence), name)
        known = method is getattr(Preprocessor, name) or hasattr(method, "written")
        _require(known, f"`{name}` was assigned after the class was made.")


def _check_one_meaning(s: Subject) -> None:
    """A chain of the defence alone gives what a direct call gives, with the same gradient."""
    d, chain = s.defence, Chain([s.defence])
    with d.frozen(0):
        out, labels = d(s.x, s.y)
        chained, chained_labels = chain(s.x, s.y)
        _require_equal(chained, out, "result")
        _require_equal(chained_labels, np.asarray(labels), "labels")
        grad = s.gradient()
        pulled = d.estimate_gradient(s.x, grad)
        _require_equal(chain.estimate_gradient(s.x, grad), pulled, "gradient", 1e-6)


# Parameters


def _check_params_roundtrip(s: Subject) -> None:
    """Parameters are stored under their names as the very objects that were passed."""
    d = s.defence
    params = d.get_params()
    _require(
        tuple(params) == tuple(d.params), f"get_params() has {tuple(params)}, the constructor {d.params}."
    )
    rebuilt = type(d)(**params)
    for name, value in rebuilt.get_params().items():
        _require(value is params[name], f"`{name}`: passed {params[name]!r}, kept {value!r}.")
    before = s.run(s.x)
    _require(d.set_params(**params) is d, "set_params() must return the defence.")
    _require_equal(s.run(s.x), before, "result after set_params() with its own parameters")
    _require(_recipe(rebuilt) == _recipe(d), f"repr is {d!r}, rebuilt from its parameters {rebuilt!r}.")


def _recipe(defence: Preprocessor) -> str:
    """The constructor call, without the addresses of objects in it."""
    return re.sub(r"0x[0-9A-Fa-f]+", "", repr(defence))


def _check_set_params_unknown(s: Subject) -> None:
    """Unknown parameters are refused with a TypeError and change nothing."""
    before = s.defence.get_params()
    attempt = {**before, "no_such_parameter": 1}
    message = _require_refusal(TypeError, "set_params()", partial(s.defence.set_params, **attempt))
    _require("no_such_parameter" in message, f"The message does not name the parameter: {message}")
    _require(not hasattr(s.defence, "no_such_parameter"), "The unknown parameter was stored.")
    after = s.defence.get_params()
    _require(all(after[name] is before[name] for name in before), "Other parameters changed.")
    _require_refusal(TypeError, "An unknown keyword of the constructor", partial(type(s.defence), **attempt))


def _check_sklearn_clone(s: Subject) -> None:
    """It can be cloned by scikit-learn."""
    if find_spec("sklearn") is None:
        return
    from sklearn.base import clone

    copied = clone(s.defence)
    _require(type(copied) is type(s.defence), f"The clone is a {type(copied).__name__}.")
    _require(_recipe(copied) == _recipe(s.defence), f"The clone of {s.defence!r} is {copied!r}.")


def _check_pickle(s: Subject) -> None:
    """It survives pickle and copy.deepcopy, also after use."""
    expected = s.run(s.x)
    unpickled = copy.copy(s.defence)  # its class may stand where pickle cannot find it, as in a notebook
    unpickled.__dict__ = pickle.loads(pickle.dumps(vars(s.defence)))  # noqa: S301
    for how, twin in (("pickle", unpickled), ("copy.deepcopy", copy.deepcopy(s.defence))):
        _require_equal(Subject(twin, s.x, s.y).run(s.x), expected, f"result after {how}")
        _require(_recipe(twin) == _recipe(s.defence), f"{how} turned {s.defence!r} into {twin!r}.")


# Calls


def _check_calls(s: Subject) -> None:
    """Every way to call it gives the same batch and its labels."""
    d = s.defence
    with d.frozen(0):
        result: Any = d(s.x, s.y)
        _require(isinstance(result, tuple) and len(result) == 2, f"It returned {type(result).__name__}.")
        out, labels = result
        _require(isinstance(out, np.ndarray), f"A NumPy batch became {type(out).__name__}.")
        forward, forward_labels = d.forward(s.x, s.y)
        _require_equal(forward, out, "forward()")
        _require_equal(forward_labels, np.asarray(labels), "labels of forward()")
        _require_equal(d.estimate_forward(s.x, s.y), out, "estimate_forward()")
        if d.mixes_samples:
            _require_refusal(ValueError, "A batch without labels", d.transform, s.x)
        elif not s.of_labels:
            _require_equal(d.transform(s.x), out, "transform()")
            _require(d(s.x)[1] is None, "Labels appeared from nowhere.")
    if d._changes_labels:
        _require(len(labels) == len(out), f"{len(labels)} labels for {len(out)} samples.")
    else:
        _require(labels is s.y, "Labels must pass through as the very object.")
    _require(d.changes_shape or out.shape == s.x.shape, f"changes_shape=False, but the shape is {out.shape}.")
    _require(out.shape == d._output_shape(s.x.shape), f"_output_shape() disagrees with {out.shape}.")
    finite = out.dtype.kind != "f" or np.isfinite(out).all()
    _require(finite, "The result holds NaN or infinity.")


def _check_fit(s: Subject) -> None:
    """fit() returns the defence, ready for use."""
    _require(s.defence.fit(s.x, s.y) is s.defence, "fit() must return the defence.")
    _require(s.defence.is_fitted, "`is_fitted` is False after fit().")


def _check_input_unchanged(s: Subject) -> None:
    """Arrays of the caller are never changed, and a result never shares their memory."""
    x, y, grad = s.x.copy(), s.y.copy(), s.gradient()
    given = (x, y, grad)
    before = [a.tobytes() for a in given]
    with s.defence.frozen(0):
        out, labels = s.defence(x, y)
        pulled = s.defence.estimate_gradient(x, grad)
    s.defence.fit(x, y)
    for name, array, kept in zip(("x", "y", "grad"), given, before, strict=True):
        _require(array.tobytes() == kept, f"`{name}` was written to.")
    if not s.of_labels:
        _require(not np.shares_memory(out, x), "The result is a view of `x`.")
    if labels is not y:
        _require(not np.shares_memory(np.asarray(labels), y), "The labels are a view of `y`.")
    _require(not np.shares_memory(pulled, grad), "The gradient returned is a view of `grad`.")


def _check_read_only(s: Subject) -> None:
    """Read-only arrays work."""
    expected, grad = s.run(s.x), s.gradient()
    expected_grad = s.pull_back(s.x, grad)
    for array in (s.x, s.y, grad):
        array.setflags(write=False)
    _require_equal(s.run(s.x), expected, "result")
    _require_equal(s.pull_back(s.x, grad), expected_grad, "gradient")
    d = s.defence
    with d.frozen(0):
        seed = d._next_seed()
    begun = Pass.begin(d, s.x, seed)  # as in a chain, and tensors; a call with an array may make a copy
    _require_equal(begun.output(), expected, "result for a read-only view")


def _check_non_contiguous(s: Subject) -> None:
    """The layout of memory makes no difference, to the last bit; numpy.ascontiguousarray helps."""
    for dtype in (np.float32, np.float64):
        s.x, grad = s.x.astype(dtype), s.gradient()
        expected, expected_grad = s.run(s.x), s.pull_back(s.x, grad)
        for x, g in zip(_layouts(s.x), _layouts(grad), strict=True):
            _require_equal(s.run(x), expected, f"result for {np.dtype(dtype)}")
            _require_equal(s.pull_back(x, g), expected_grad, f"gradient for {np.dtype(dtype)}")


def _layouts(a: Array) -> Iterator[Array]:
    """The same values in Fortran order, with gaps, and backwards in memory."""
    yield np.asfortranarray(a)
    gaps = np.empty((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    gaps[..., ::2] = a
    yield gaps[..., ::2]
    yield np.ascontiguousarray(a[::-1])[::-1]


def _check_empty_batch(s: Subject) -> None:
    """A batch without samples gives one without samples, of the same kind."""
    full, none = s.run(s.x), s.x[:0]
    out = s.run(none)
    expected = s.defence._output_shape(none.shape)
    _require(out.shape == expected, f"The shape is {out.shape} instead of {expected}.")
    _require(out.dtype == full.dtype, f"The dtype is {out.dtype} instead of {full.dtype}.")
    pulled = s.pull_back(none, np.zeros(out.shape))
    _require(pulled.shape == none.shape, f"The gradient has shape {pulled.shape} instead of {none.shape}.")


def _check_single_sample(s: Subject) -> None:
    """A batch of one sample works, and a sample without a batch."""
    one = s.x[:1]
    out = s.run(one)
    expected = s.defence._output_shape(one.shape)
    _require(out.shape == expected, f"The shape is {out.shape} instead of {expected}.")
    if s.x.ndim - 1 in sample_axes(s.defence.domains) and not s.defence._changes_labels:
        with s.defence.frozen(0):
            _require_equal(s.defence.transform_one(s.x[0]), out[0], "transform_one()")
    pulled = s.pull_back(one, np.ones(out.shape))
    _require(pulled.shape == one.shape, f"The gradient has shape {pulled.shape} instead of {one.shape}.")


def _check_dtype_rule(s: Subject) -> None:
    """The dtype of the result is `output_dtype` or a smaller floating one; else floating types stay."""
    if s.of_labels:
        return
    for name in DTYPES:
        dtype = np.dtype(name)
        x = s.x.astype(dtype) if dtype.kind in "fb" else np.clip(np.rint(s.x), 0, 127).astype(dtype)
        with _silence():  # truth values do not fill a range of 255 steps
            out, expected = s.run(x), _expected_dtype(s.defence, dtype)
        _require(out.dtype == expected, f"{dtype} became {out.dtype} instead of {expected}.")
        _require(out.dtype.isnative, f"{dtype} came back in foreign byte order.")


def _expected_dtype(defence: Preprocessor, dtype: Dtype) -> Dtype:
    if defence._stages:
        for stage in defence._stages:
            dtype = _expected_dtype(stage, dtype)
        return dtype
    if defence.domains == ("labels",):
        return dtype
    if defence.output_dtype is not None:
        smaller = dtype.kind == "f" and dtype.itemsize < np.dtype(defence.output_dtype).itemsize
        return dtype.newbyteorder("=") if smaller else np.dtype(defence.output_dtype)
    kept = defence.keeps_integers and dtype.kind in "bui"
    return dtype.newbyteorder("=") if kept else kept_dtype(dtype)


def _check_byte_order(s: Subject) -> None:
    """The byte order makes no difference."""
    if s.x.dtype.itemsize > 1:
        _require_equal(s.run(s.x.astype(s.x.dtype.newbyteorder())), s.run(s.x), "result")


def _check_refuses_nan(s: Subject) -> None:
    """NaN and infinity are refused with a ValueError that counts them."""
    if s.of_labels:
        return
    x = s.x.astype(np.float32)
    flat = x.reshape(-1)
    flat[0], flat[-1] = np.nan, np.inf
    message = _require_refusal(ValueError, "A batch with NaN and infinity", s.run, x)
    _require("1 NaN and 1 infinite" in message, f"The message does not count them: {message}")


def _check_refuses_kinds(s: Subject) -> None:
    """What is not made of real numbers is refused with a TypeError."""
    if s.of_labels:
        return
    text = s.x.astype(object)
    text.flat[-1] = "1"
    for x in (s.x.astype(complex), s.x.astype(str), text):
        _require_refusal(TypeError, f"An array of dtype {x.dtype}", s.run, x)


def _check_numbers_of_python(s: Subject) -> None:
    """An array of numbers of Python's, as a data frame of mixed columns yields it, is one of numbers."""
    if s.of_labels:
        return
    x, grad = s.x.astype(float), s.gradient()
    out, pulled = s.run(x), s.pull_back(x, grad)
    _require_equal(s.run(x.astype(object)).astype(out.dtype), out, "result")
    _require_equal(s.pull_back(x.astype(object), grad.astype(object)).astype(float), pulled, "gradient")


def _check_refuses_dimensions(s: Subject) -> None:
    """A wrong number of dimensions is refused with a ValueError."""
    if s.of_labels:
        return
    _require_refusal(ValueError, "A scalar", s.defence.transform, s.x.flat[0])
    if set(s.defence.domains) <= {"image", "video"}:
        for x in (s.x.reshape(len(s.x), -1), s.x[..., None, None]):
            _require_refusal(ValueError, f"A batch of shape {x.shape}", s.run, x)
    if set(s.defence.domains) in ({"image"}, {"video"}):
        _require_refusal(ValueError, "A sample without its batch axis", s.run, s.x[0])


def _check_refuses_other_layouts(s: Subject) -> None:
    """A batch that plainly has another layout is refused, unless `layout` is stated or of no matter."""
    d = s.defence
    if not set(d.domains) <= {"image", "video"} or d.layout is not None or hasattr(d, "defences"):
        return
    for layout in expected_layouts(d.domains, getattr(d, "channels_first", None), None).values():
        for other in LAYOUTS["video" if "F" in layout else "image"] if layout else ():
            x = np.zeros([SIDES[axis] for axis in other], np.float32)
            if other != layout:
                _require_refusal(ValueError, f"A batch {x.shape} of layout {other}, not {layout},", s.run, x)
    if hasattr(d, "channels_first") or d.stochastic or d.changes_shape:
        return
    last, moved = s.run(s.x), np.moveaxis(s.x, -1, 1)
    try:
        first = s.run(moved)
    except (LookupError, TypeError, ValueError):  # refused, or no pictures any more
        return
    _require(
        first.shape == moved.shape and _distance(np.moveaxis(first, 1, -1), last) <= 1e-6,
        "The result depends on the axis of the channels, and there is no `channels_first`: add that "
        'parameter, or state the class attribute `layout`, for example "NHWC".',
    )


def _check_layouts(s: Subject) -> None:
    """Each `layout` gives what moving the axes by hand gives, and refuses another number of axes."""
    d = s.defence
    if "layout" not in d.params or s.x.ndim not in (4, 5):
        return
    kinds = ("image", "video") if s.x.ndim == 4 else ("video", "image")
    fitting, others = (LAYOUTS[kind] for kind in kinds)
    axis, out, grad = d._channel_axis(s.x.ndim), s.run(s.x), s.gradient()
    pulled = s.pull_back(s.x, grad)
    # Limits and models would have to move too, and what is drawn may belong to places in memory.
    plain = not d.stochastic and all(map(_is_plain, d.get_params().values()))
    free = {"channels_first": False} if "channels_first" in d.params else {}
    for layout in fitting:
        there = layout.index("C")
        if plain or there == axis:
            stated = Subject(copy.deepcopy(d).set_params(layout=layout, **free), s.x, s.y)
            moved, moved_grad = (np.moveaxis(a, axis, there) for a in (s.x, grad))
            for what, array, expected in (
                ("result", stated.run(moved), out),
                ("gradient", stated.pull_back(moved, moved_grad), pulled),
            ):
                _require_equal(
                    np.moveaxis(array, there, axis), expected, f"{what} with layout={layout!r}", 1e-6
                )
    for layout in others:

        def run(layout: str = layout) -> None:
            Subject(copy.deepcopy(d).set_params(layout=layout, **free), s.x, s.y).run(s.x)

        _require_refusal(ValueError, f"layout={layout!r} with a batch of shape {s.x.shape}", run)


def _is_plain(value: Any) -> bool:
    """Whether a parameter has no axes of its own, and computes nothing."""
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | np.generic)


def _check_batch_independence(s: Subject) -> None:
    """A sample is defended alike, whatever else is in the batch; by the same draw, if there is one."""
    if s.defence.mixes_samples:
        return
    _check_label_independence(s)
    if s.of_labels:
        return
    out, grad = s.run(s.x), s.gradient()
    pulled = s.pull_back(s.x, grad)
    for i in range(len(s.x)):
        if not s.defence.stochastic:
            _require_equal(s.run(s.x[i : i + 1]), out[i : i + 1], f"sample {i} alone", 1e-6)
        others = _copies(s.x, i)
        among_others = s.run(others)[i]
        _require_equal(among_others, out[i], f"sample {i} with copies of itself for the others", 1e-6)
        # The gradients of added samples belong to this one as well.
        grads = _copies(grad, i) if len(grad) == len(s.x) else grad
        back = s.pull_back(others, grads)[i]
        _require_equal(back, pulled[i], f"gradient of sample {i} with copies of it for the others", 1e-6)


def _check_numbers(s: Subject) -> None:
    """What is drawn for a sample depends on its number, not on how the data are cut into batches."""
    if not s.defence.stochastic or s.of_labels or not s.numbers_samples:
        return
    out, grad = s.run(s.x), s.gradient()
    pulled = s.pull_back(s.x, grad)
    for i in range(len(s.x)):
        alone = slice(i, i + 1)
        with s.defence.frozen(0):
            one = s.defence(s.x[alone], s.y[alone], index=i)[0]
        _require_equal(one, out[alone], f"sample {i} alone, with index={i}", 1e-6)
        back = s.pull_back(s.x[alone], grad[alone], i)
        _require_equal(back, pulled[alone], f"gradient of sample {i} alone, with index={i}", 1e-6)


def _check_label_independence(s: Subject) -> None:
    """Part of the check before: labels are those of their samples."""
    if not s.defence._changes_labels:
        return
    with s.defence.frozen(0):
        labels = np.asarray(s.defence(s.x, s.y)[1])
        for i in range(len(s.x)):
            among_others = np.asarray(s.defence(_copies(s.x, i), _copies(s.y, i))[1])[i]
            _require_equal(among_others, labels[i], f"label {i} with copies of it for the others", 1e-6)


def _copies(batch: Array, i: int) -> Array:
    """A batch of copies of one of its samples."""
    return np.repeat(batch[i : i + 1], len(batch), axis=0)


def _check_own_range(s: Subject) -> None:
    """What range a sample has does not follow from the others in the batch."""
    if s.defence.mixes_samples or s.of_labels or s.x.dtype.kind != "f":
        return
    expected = s.run(s.x)[:1]
    x = s.x.copy()
    x[1:] *= 255
    with _silence():
        try:
            out = s.run(x)
        except ValueError:  # a defence may refuse what lies outside of its range
            return
    _require_equal(out[:1], expected, "sample 0 beside others that are 255 times as large", 1e-6)


def _check_ragged(s: Subject) -> None:
    """Where the class says so, samples may differ in length, and each is defended as if it were alone."""
    if not s.defence.ragged or s.defence.stochastic or s.of_labels or "ragged" in s.defence._assumed:
        return
    time = 1 if s.x.ndim > 2 and s.defence._channel_axis(s.x.ndim) == 1 else 0
    samples = [np.delete(sample, np.s_[:i], axis=time) for i, sample in enumerate(s.x)]
    before = [sample.tobytes() for sample in samples]
    batch = object_array(samples)
    out = s.run(batch)
    one_shape = s.defence._output_shape((1, *samples[0].shape)) == s.defence._output_shape(
        (1, *samples[1].shape)
    )
    ragged = out.dtype == object and out.shape == batch.shape
    _require(ragged or (one_shape and len(out) == len(batch)), f"The result is {out.dtype} {out.shape}.")
    grads = object_array([np.random.default_rng(0).standard_normal(o.shape) for o in out])
    pulled = s.pull_back(batch, grads)
    for i, sample in enumerate(samples):
        alone = s.run(sample[None])
        _require(out[i].dtype == alone.dtype, f"sample {i}: {alone.dtype} became {out[i].dtype}.")
        _require_equal(out[i], alone[0], f"sample {i}", 1e-6)
        _require_equal(pulled[i], s.pull_back(sample[None], grads[i][None])[0], f"gradient {i}", 1e-6)
        _require(not np.shares_memory(out[i], sample), f"sample {i} of the result is a view of `x`.")
        _require(not np.shares_memory(pulled[i], grads[i]), f"gradient {i} is a view of `grad`.")
    _require([a.tobytes() for a in samples] == before, "`x` was written to.")
    for i, sample in enumerate(s.run(samples)):
        _require_equal(sample, out[i], f"sample {i} of a list")
    _require(s.run(batch[:0]).shape == (0,), "A batch without samples did not give one.")
    wrong = object_array([np.full(sample.shape, np.nan) for sample in samples])
    _require_refusal(ValueError, "A ragged batch of NaN", s.run, wrong)
    _require_refusal(ValueError, "A gradient too few", s.pull_back, batch, grads[1:])


# Randomness


def _check_frozen(s: Subject) -> None:
    """`frozen` repeats the draw, for the same seed, and ends with its block."""
    d = s.defence
    with d.frozen(1):
        first = d(s.x, s.y)[0]
        with d.frozen(2):
            d(s.x, s.y)
        again = d(s.x, s.y)[0]
        grad = np.ones(first.shape)
        pulled = d.estimate_gradient(s.x, grad)
        _require_equal(d.estimate_gradient(s.x, grad), pulled, "gradient in the block")
    _require_equal(again, first, "second call in the block")
    _require_equal(s.run(s.x, seed=1), first, "another block with the same seed")
    _require(d.stochastic == d._draws_afresh, "It is still frozen after the block.")


def _check_reproducible(s: Subject) -> None:
    """Draws follow from NumPy's global seed, or from `rng` alone; without randomness calls agree."""
    with _global_state():
        runs = []
        for defence in (copy.deepcopy(s.defence), copy.deepcopy(s.defence)):
            if "rng" in defence.params:
                defence.set_params(rng=None)
            np.random.seed(0)
            runs.append([defence(s.x, s.y)[0] for _ in range(2)])
        _require_equal(runs[1][0], runs[0][0], "after numpy.random.seed, first call")
        _require_equal(runs[1][1], runs[0][1], "after numpy.random.seed, second call")
        if not s.defence.stochastic:
            _require_equal(runs[0][1], runs[0][0], "second call of a deterministic defence")
    if "rng" in s.defence.params:
        first, second = (copy.deepcopy(s.defence).set_params(rng=7) for _ in range(2))
        first(s.x[:1], s.y[:1]), second(s.x, s.y)  # the size of a batch does not matter to the next draw
        _require_equal(second(s.x, s.y)[0], first(s.x, s.y)[0], "second call with rng=7")


@contextmanager
def _global_state() -> Iterator[None]:
    before = Generators()
    try:
        yield
    finally:
        before.put_back()


# Gradients


def _check_gradient_shape(s: Subject) -> None:
    """A gradient is shaped as `x`, in its own floating type; one of another shape is refused."""
    for dtype in (np.float32, np.float64):
        pulled = s.pull_back(s.x, s.gradient(dtype=dtype))
        _require(pulled.shape == s.x.shape, f"The shape is {pulled.shape} instead of {s.x.shape}.")
        _require(pulled.dtype == dtype, f"{np.dtype(dtype)} became {pulled.dtype}.")
    wrong = np.ones((*s.run(s.x).shape, 2, 2))
    _require_refusal(ValueError, f"A gradient of shape {wrong.shape}", s.pull_back, s.x, wrong)


def _check_class_axis(s: Subject) -> None:
    """Gradients `(N, classes, ...)` are pulled back class by class."""
    grads = s.gradient(3)
    pulled = s.pull_back(s.x, grads)
    expected = (len(s.x), 3, *s.x.shape[1:])
    _require(pulled.shape == expected, f"The shape is {pulled.shape} instead of {expected}.")
    for k in range(3):
        _require_equal(pulled[:, k], s.pull_back(s.x, grads[:, k]), f"class {k}", 1e-6)
    none = s.pull_back(s.x, grads[:, :0])
    expected = (len(s.x), 0, *s.x.shape[1:])
    _require(none.shape == expected, f"No classes: the shape is {none.shape} instead of {expected}.")


def _check_linear_in_grad(s: Subject) -> None:
    """A vector-Jacobian product is linear in the vector."""
    a, b = np.moveaxis(s.gradient(2), 1, 0)
    combined = s.pull_back(s.x, 2 * a - 3 * b)
    parts = 2 * s.pull_back(s.x, a) - 3 * s.pull_back(s.x, b)
    _require_equal(combined, parts, "gradient of 2a - 3b", 1e-5 * max(1.0, float(np.abs(parts).max())))


def _check_identity_gradient(s: Subject) -> None:
    """A gradient taken for the identity is passed on unchanged."""
    if s.gradient_kind != "identity" or s.defence.changes_shape or hasattr(s.defence, "defences"):
        return
    grad = s.gradient()
    _require_equal(s.pull_back(s.x, grad), grad, "gradient")


def _check_exact_gradient(s: Subject) -> None:
    """An exact gradient agrees with finite differences."""
    if s.gradient_kind != "exact":
        return
    rng = np.random.default_rng(0)
    x = s.x.astype(np.float64)
    extent = float(np.ptp(x)) or 1.0
    x += 1e-2 * extent * rng.random(x.shape)  # away from ties and kinks
    double = s.run(x).dtype == np.float64
    step, tolerance = (1e-6 * extent, 1e-5) if double else (1e-3 * extent, 2e-2)
    for _ in range(3):
        direction = rng.standard_normal(x.shape)
        ahead, behind = (s.run(x + sign * step * direction).astype(np.float64) for sign in (1, -1))
        grad = rng.standard_normal(ahead.shape)
        expected = float((grad * (ahead - behind)).sum() / (2 * step))
        found = float((s.pull_back(x, grad) * direction).sum())
        close = abs(found - expected) <= tolerance * (1 + np.sqrt(x.size))
        _require(close, f"Along a random direction it is {found:.6g} instead of {expected:.6g}.")


# Threads


def _check_threads(s: Subject) -> None:
    """Neither several calls at once nor the number of threads changes a result."""
    expected = s.run(s.x)
    before = os.environ.get("PRESHIELD_NUM_THREADS")
    try:
        for threads in ("1", "3"):
            os.environ["PRESHIELD_NUM_THREADS"] = threads
            _require_equal(s.run(s.x), expected, f"{threads} threads")
    finally:
        os.environ.pop("PRESHIELD_NUM_THREADS", None)
        if before is not None:
            os.environ["PRESHIELD_NUM_THREADS"] = before
    with ThreadPoolExecutor(8) as pool:
        for out in pool.map(s.run, [s.x] * 8):
            _require_equal(out, expected, "eight calls at once")
    if s.defence.stochastic:
        _check_frozen_by_another(s)


def _check_frozen_by_another(s: Subject) -> None:
    """A draw that one thread has frozen is not that of another."""
    with s.defence.frozen(0), ThreadPoolExecutor(1) as pool:
        _require(pool.submit(lambda: s.defence._draws_afresh).result(), "Another thread is frozen as well.")


# Tensors. JAX has no double precision by default, so all of them start from float32


def _reference(s: Subject) -> tuple[Array, Array, Array, Array]:
    """Batch, defended batch, a gradient of it, and that pulled back; by NumPy."""
    x = s.x.astype(np.float32)
    grad = s.gradient(dtype=np.float32)
    return x, s.run(x), grad, s.pull_back(x, grad)


def _check_torch(s: Subject) -> None:
    """Torch tensors give torch tensors on the same device, with the gradient."""
    if find_spec("torch") is None:
        return
    import torch

    x, expected, grad, pulled = _reference(s)
    tensor = torch.tensor(x, requires_grad=True)
    with s.defence.frozen(0):
        out, labels = s.defence(tensor, torch.tensor(s.y))
    _require(isinstance(out, torch.Tensor), f"The result is {type(out).__name__}.")
    _require(isinstance(labels, torch.Tensor), f"The labels became {type(labels).__name__}.")
    _require(out.device == tensor.device, f"The result lies on {out.device}.")
    _require_equal(out.detach(), expected, "result", 1e-6)
    if out.is_floating_point():
        (out * torch.tensor(grad)).sum().backward()
        _require_equal(tensor.grad, pulled, "gradient", 1e-5)


def _check_tensorflow(s: Subject) -> None:
    """TensorFlow tensors give TensorFlow tensors with the gradient, also inside tf.function."""
    if find_spec("tensorflow") is None:
        return
    import tensorflow as tf

    x, expected, grad, pulled = _reference(s)

    def run(tensor: Any, y: Any) -> tuple[Any, Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(tensor)
            out, labels = s.defence(tensor, y)
            product = tf.reduce_sum(tf.cast(out, tf.float32) * grad)
        return out, labels, tape.gradient(product, tensor)

    for how, function in (("eager", run), ("traced", tf.function(run))):
        with s.defence.frozen(0):
            out, labels, back = function(tf.constant(x), tf.constant(s.y))
        _require(tf.is_tensor(out) and tf.is_tensor(labels), f"{how}: the result is {type(out).__name__}.")
        _require_equal(out, expected, f"{how}, result", 1e-6)
        _require_equal(back, pulled, f"{how}, gradient", 1e-5)


def _check_jax(s: Subject) -> None:
    """JAX arrays give JAX arrays with the gradient, also inside jax.jit."""
    if find_spec("jax") is None:
        return
    import jax

    x, expected, grad, pulled = _reference(s)
    y = jax.numpy.asarray(s.y)

    def run(array: Any, y: Any) -> Any:
        return s.defence(array, y)

    def product(array: Any, y: Any) -> Any:
        return (s.defence(array, y)[0] * grad).sum()

    derivative = jax.grad(product)
    for how, forward, backward in (
        ("eager", run, derivative),
        ("traced", jax.jit(run), jax.jit(derivative)),
    ):
        with s.defence.frozen(0):
            out, labels = jax.block_until_ready(forward(jax.numpy.asarray(x), y))
            back = jax.block_until_ready(backward(jax.numpy.asarray(x), y))
        are_arrays = isinstance(out, jax.Array) and isinstance(labels, jax.Array)
        _require(are_arrays, f"{how}: the result is {type(out).__name__}.")
        _require_equal(out, expected, f"{how}, result", 1e-6)
        _require_equal(back, pulled, f"{how}, gradient", 1e-5)


CHECKS: tuple[Callable[[Subject], None], ...] = (
    _check_facts,
    _check_final,
    _check_calls,
    _check_input_unchanged,
    _check_read_only,
    _check_non_contiguous,
    _check_empty_batch,
    _check_single_sample,
    _check_dtype_rule,
    _check_byte_order,
    _check_refuses_nan,
    _check_refuses_kinds,
    _check_numbers_of_python,
    _check_refuses_dimensions,
    _check_refuses_other_layouts,
    _check_layouts,
    _check_batch_independence,
    _check_numbers,
    _check_own_range,
    _check_ragged,
    _check_frozen,
    _check_reproducible,
    _check_fit,
    _check_params_roundtrip,
    _check_set_params_unknown,
    _check_sklearn_clone,
    _check_pickle,
    _check_gradient_shape,
    _check_class_axis,
    _check_linear_in_grad,
    _check_identity_gradient,
    _check_exact_gradient,
    _check_threads,
    _check_one_meaning,
    _check_torch,
    _check_tensorflow,
    _check_jax,
)
