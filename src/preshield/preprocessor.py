"""The contract of a defence."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ._core import random, tensors
from ._core.checks import (
    check_batch,
    check_gradient,
    check_integer,
    check_ragged_gradient,
    check_unknown,
    refuse_other_layout,
)
from ._core.layout import channel_axis, expected_layouts, kept_dtype, object_array, other_layouts
from ._core.ranges import fits, misfit, most_of, warn_caller
from ._core.remedies import Taken
from ._core.typing import Array, Dtype, Seed, Shape

if TYPE_CHECKING:
    from ._core.html import Html

__all__ = ["Preprocessor"]

NOT_KEPT = ("channel_index", "device_type")  # arguments of our constructors that are accepted for ART's sake


class Preprocessor:
    """Base class of every defence.

    A subclass states its facts as class attributes, writes an `__init__` that assigns and checks its
    parameters and computes nothing, and the hooks that it needs; the public methods are final. Where
    `art` is installed, every instance passes as ART's `Preprocessor`, `PreprocessorPyTorch` and
    `PreprocessorTensorFlowV2`, so it goes into `preprocessing_defences` of any classifier.

    Attributes
    ----------
    domains : tuple of str
        What it protects: "image", "video", "audio", "features", "labels".
    stochastic : bool
        Whether two calls on the same input may differ.
    gradient_kind : str
        What `estimate_gradient` is by default: "exact", "identity" (the defence is taken for the identity)
        or "surrogate" (a differentiable stand-in).
    gradients : tuple of str
        Legal values of the parameter `gradient`, if it has one; an evaluation attacks with each of them.
    changes_shape : bool
        Whether the output may have another shape than the input.
    optimises_at_test_time : bool
        Whether a call runs an optimiser.
    output_dtype : str or None
        The dtype of every output, but that smaller floating types stay; None keeps all floating types and
        makes integers `float32`.
    keeps_integers : bool
        With `output_dtype=None`: integers stay as they are.
    mixes_samples : bool
        Whether a sample of the output is made of several of the batch, and its label of theirs; a call then
        needs the labels.
    in_place : bool
        Whether `_transform` writes to a batch that may be written to, and returns it. Where nobody else needs
        the batch it then gets a copy, which is made in the pass that checks the values.
    ragged : bool
        Whether samples may differ in length: `x` is a list or object array of them, and hooks see a
        one-dimensional object array of checked, read-only samples. `_transform` returns one too, or a batch
        of one shape in its final dtype.
    paper : str
        Where it was proposed.
    known_attacks : tuple of str
        Who broke it, and how far.
    params : tuple of str
        Names of the constructor's parameters.

    `apply_fit`, `apply_predict`, `channels_first` and `layout` are parameters of a defence, which the base
    class reads: the last two say on which axis a batch of images or videos has its channels.

    Notes
    -----
    Hooks, all on NumPy arrays:

    ``_transform(x, draw)``
        The arithmetic, on a checked batch, read-only unless `in_place`; deterministic given `draw`.
    ``_draw(x, rng)``
        Stochastic defences: what is drawn for this batch, from a generator. Only the shape and dtype of
        `x` may be used.
    ``_gradient(x, grad, draw)``
        Vector-Jacobian product at `x`, or its estimate; the identity if not written.
    ``_transform_labels(y, draw)``
        Labels, where they change.
    ``_fit(x, y, **kwargs)``
        Learning, where there is any.
    ``_output_shape(shape)``
        Shape of the output, where it differs from that of the input.

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import Preprocessor
    >>> class Invert(Preprocessor):
    ...     domains = ("image", "features")
    ...     gradient_kind = "exact"
    ...
    ...     def _transform(self, x, draw):
    ...         return 1 - x
    ...
    ...     def _gradient(self, x, grad, draw):
    ...         return -grad
    >>> Invert().transform(np.array([[0.25, 1.0]]))
    array([[0.75, 0.  ]])
    """

    domains: ClassVar[tuple[str, ...]] = ("image",)
    stochastic: ClassVar[bool] = False
    gradient_kind: ClassVar[str] = "identity"
    gradients: ClassVar[tuple[str, ...]] = ()
    changes_shape: ClassVar[bool] = False
    optimises_at_test_time: ClassVar[bool] = False
    output_dtype: ClassVar[str | None] = None
    keeps_integers: ClassVar[bool] = False
    mixes_samples: ClassVar[bool] = False
    in_place: ClassVar[bool] = False
    ragged: ClassVar[bool] = False
    paper: ClassVar[str] = ""
    known_attacks: ClassVar[tuple[str, ...]] = ()
    params: ClassVar[tuple[str, ...]] = ()

    apply_fit: bool = False
    apply_predict: bool = True
    layout: str | None = None

    _stream: random.SeedStream | None = None
    _fitted: bool = False
    _range_doubted: bool = False  # a warning of the range of the data comes once

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        signature = inspect.signature(cls.__init__)
        ours = getattr(cls.__init__, "__module__", "").startswith(f"{__package__}.")
        cls.params = tuple(
            name
            for name, parameter in signature.parameters.items()
            if name not in (("self", *NOT_KEPT) if ours else ("self",))
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        )

    # Public, final

    def __call__(self, x: Any, y: Any = None) -> tuple[Any, Any]:
        """Apply the defence.

        Parameters
        ----------
        x : array_like or tensor
            Batch, first axis samples. NumPy arrays, and tensors of torch, TensorFlow and JAX, eager or
            traced; gradients flow through tensors as `estimate_gradient` states.
        y : array_like or tensor, optional
            Labels of the batch.

        Returns
        -------
        x : as the input
            Defended batch, of the same type and on the same device.
        y : as the input
            The labels; unchanged unless the defence is about labels or adds samples.

        Raises
        ------
        TypeError, ValueError
            If the batch cannot be defended; before any work starts.
        """
        return tensors.call(self, x, y)

    def transform(self, x: Any) -> Any:
        """Apply the defence to a batch without labels.

        Parameters
        ----------
        x : array_like or tensor
            Batch.

        Returns
        -------
        array or tensor
            Defended batch.
        """
        return self(x)[0]

    def forward(self, x: Any, y: Any = None) -> tuple[Any, Any]:
        """Apply the defence, as ART's framework classifiers do; the same as calling it."""
        return self(x, y)

    def estimate_forward(self, x: Any, y: Any = None) -> Any:
        """Apply the defence where only its gradient is wanted; the same as `transform`."""
        return self(x, y)[0]

    def estimate_gradient(self, x: Any, grad: Any) -> Any:
        """Pull a gradient back through the defence.

        Parameters
        ----------
        x : array_like or tensor
            Batch at which the defence is differentiated.
        grad : array_like or tensor
            Gradient with respect to the output: shaped like it, or `(N, classes, ...)`.

        Returns
        -------
        array or tensor
            Gradient with respect to `x`; with the axis of classes if `grad` has one. Exact, or an
            estimate: see `gradient_kind` and the class. A stochastic defence draws anew unless `frozen`.
        """
        return self._estimate_gradient(x, grad)

    def fit(self, x: Any, y: Any = None, **kwargs: Any) -> Self:
        """Learn from data, if the defence has anything to learn.

        Parameters
        ----------
        x : array_like or tensor
            Training batch.
        y : array_like or tensor, optional
            Its labels.
        **kwargs
            What the subclass documents; unknown names are refused.

        Returns
        -------
        self
        """
        self._fit(self._checked(tensors.to_numpy(x)), None if y is None else tensors.to_numpy(y), **kwargs)
        self._fitted = True
        return self

    @property
    def is_fitted(self) -> bool:
        """Whether it can be called: always, unless there is something to learn first."""
        return self._fitted or not self._learns

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters by name, the very objects that were passed.

        Parameters
        ----------
        deep : bool, default True
            For scikit-learn; makes no difference.

        Returns
        -------
        dict
        """
        kept = vars(self)  # not through a property, which may tell readers of a parameter about it
        return {name: kept[name] if name in kept else getattr(self, name) for name in self.params}

    def set_params(self, **params: Any) -> Self:
        """Change parameters after the checks of the constructor.

        Parameters
        ----------
        **params
            New values by name.

        Returns
        -------
        self

        Raises
        ------
        TypeError
            If a name is unknown; nothing has changed then.
        """
        check_unknown(set(params), self.params, type(self).__name__)
        checked = type(self)(**{**self.get_params(), **params})
        for name in params:
            setattr(self, name, getattr(checked, name))
        if "rng" in params:
            self.__dict__.pop("_stream", None)
        if not {"clip_values", "full_scale"}.isdisjoint(params):
            self.__dict__.pop("_range_doubted", None)
        return self

    @contextmanager
    def frozen(self, seed: int = 0) -> Iterator[Self]:
        """Repeat the same draw at every call of this thread inside a `with` block.

        Inside a compiled graph, whose threads are those of its framework, it holds for all callers.

        Parameters
        ----------
        seed : int, default 0
            Which draw.

        Yields
        ------
        self

        Examples
        --------
        >>> import numpy as np
        >>> from preshield import GaussianAugmentation
        >>> noise = GaussianAugmentation(augmentation=False)
        >>> x = np.zeros((1, 2))
        >>> with noise.frozen(1):
        ...     same = (noise.transform(x) == noise.transform(x)).all()
        >>> bool(same)
        True
        """
        with random.FROZEN.held(self, check_integer("seed", seed, minimum=0)):
            yield self

    def __repr__(self) -> str:
        """Constructor call with the parameters that differ from the defaults."""
        shown = [f"{name}={value!r}" for name, value in self._changed_params().items()]
        return f"{type(self).__name__}({', '.join(shown)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: a card with parameters, facts, paper and known attacks."""
        from ._core import html

        return html.scoped(self._card())

    def __sklearn_tags__(self) -> Any:
        """Say to scikit-learn that this is a transformer without a requirement to be fitted."""
        from sklearn.utils import Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(),
            requires_fit=not self.is_fitted,
        )

    def _changed_params(self) -> dict[str, Any]:
        parameters = inspect.signature(type(self).__init__).parameters
        return {
            name: value
            for name, value in self.get_params().items()
            if not _equal(value, parameters[name].default)
        }

    def _card(self) -> "Html":
        from ._core import html

        stages = self._stages
        return html.card(
            self,
            type(self).__name__,
            {
                name: html.short(value)
                for name, value in self.get_params().items()
                if not (stages and value is stages)  # they have cards of their own
            },
            changed=self._changed_params(),
            stages=[stage._card() for stage in stages],
            domains=self.domains,
        )

    # Hooks, for subclasses

    def _transform(self, x: Array, draw: Any) -> Array:
        raise NotImplementedError(f"{type(self).__name__} must write _transform(x, draw).")

    def _draw(self, x: Array, rng: np.random.Generator) -> Any:
        raise NotImplementedError(f"{type(self).__name__} is stochastic and must write _draw(x, rng).")

    def _gradient(self, x: Array, grad: Array, draw: Any) -> Array:
        return grad

    def _transform_labels(self, y: Array | None, draw: Any) -> Array | None:
        return y

    def _fit(self, x: Array, y: Array | None) -> None:
        """Nothing to learn."""

    def _output_shape(self, shape: Shape) -> Shape:
        return shape

    # Seeds and draws; a Chain has those of its stages

    @property
    def _seed_words(self) -> int:
        return random.SEED_WORDS if self.stochastic else 0

    def _fresh_seed(self) -> Seed:
        if not self.stochastic:
            return np.zeros(0, dtype=np.uint32)
        stream = self._stream
        if stream is None:  # one for all threads, whichever is first
            stream = self.__dict__.setdefault("_stream", random.SeedStream(getattr(self, "rng", None)))
        return stream.next()

    def _begin(self, x: Array, seed: Seed) -> Any:
        """The draw of one pass, from its seed."""
        return self._draw(x, random.generator(seed)) if self.stochastic else None

    @property
    def _learns(self) -> bool:
        return type(self)._fit is not Preprocessor._fit

    @property
    def _stages(self) -> "Sequence[Preprocessor]":
        return ()

    @property
    def _changes_labels(self) -> bool:
        return type(self)._transform_labels is not Preprocessor._transform_labels

    # What estimate_gradient does; the GAN search also answers for latents, as ART's does

    def _estimate_gradient(self, x: Any, grad: Any) -> Any:
        return tensors.pull_back(self, x, grad)

    # What tensors.py and Chain call, on NumPy arrays

    def _next_seed(self) -> Seed:
        """The seed of the next pass."""
        frozen = random.FROZEN.seed(self)
        return self._fresh_seed() if frozen is None else random.expand_seed(frozen, self._seed_words)

    def _seed_of_callback(self) -> Seed:
        """The seed of the next pass, asked for by a thread of a framework on behalf of another."""
        with random.FROZEN.borrowed():
            return self._next_seed()

    @property
    def _draws_afresh(self) -> bool:
        """Whether the next pass has another draw than the last one."""
        return self.stochastic and random.FROZEN.seed(self) is None

    def _checked(self, x: Any, *, writable: bool = False, doubt: bool = True) -> Array:
        """`x` as an array that this defence can take: a read-only view, or a copy to write to.

        If `doubt`, a batch that plainly has another layout than the one expected is refused.
        """
        if self.domains == ("labels",):
            return x  # type: ignore[no-any-return]
        channels_first, layout = self._axes
        peaks: list[float] = []
        batch = check_batch(
            x,
            tuple(self.domains),
            channels_first,
            layout=layout,
            keywords=self.params,
            ragged=self.ragged,
            writable=writable,
            peaks=peaks,
        )
        if doubt and batch.dtype == object:
            for i, sample in enumerate(batch):
                if sample.ndim in (3, 4):
                    self._check_layout((1, *sample.shape), name=f"x[{i}]")
        elif doubt and batch.ndim in (4, 5):
            self._check_layout(batch.shape)
        self._check_range(batch, peaks)
        return batch

    @property
    def _stated_range(self) -> tuple[str, float] | None:
        """The parameter that states the range of all values, and the larger magnitude of its ends."""
        most = most_of(getattr(self, "clip_values", None))
        return None if most is None else ("clip_values", most)

    def _check_range(self, x: Array, peaks: list[float]) -> None:
        """Warn of a batch that is far from the range that it is said to have."""
        if self._range_doubted or (stated := self._stated_range) is None:
            return
        parameter, most = stated
        if not fits(x, peaks, most):
            self._doubt_range(misfit(x, parameter, getattr(self, parameter), most))

    def _doubt_range(self, message: str) -> None:
        """Warn of the range of the data, once for each object."""
        if not self._range_doubted:
            self._range_doubted = True
            warn_caller(f"{type(self).__name__}: {message}")

    @property
    def _axes(self) -> tuple[bool | None, str | None]:
        """What `channels_first` and `layout` say; no more than None if the channels make no difference."""
        return getattr(self, "channels_first", None), self.layout

    def _channel_axis(self, ndim: int) -> int:
        """Axis of the channels, for hooks of a defence that has `channels_first`."""
        return channel_axis(ndim, *self._axes)

    def _check_layout(self, shape: Shape, settled: int | None = None, name: str | None = None) -> int | None:
        """Refuse a shape that plainly has another layout than the one expected.

        Parameters
        ----------
        shape : tuple of int
            Shape of a batch.
        settled : int, optional
            Axis on which an earlier stage of a chain has found the channels: there is no doubt any more.
        name : str, optional
            Name of the sample, if `shape` is that of a batch with it alone.

        Returns
        -------
        int or None
            Axis on which the channels are known to be.
        """
        channels_first, layout = self._axes
        expected = expected_layouts(tuple(self.domains), channels_first, layout).get(len(shape))
        if expected is None:
            return settled
        axis = expected.index("C")
        if layout is None and axis != settled and (found := other_layouts(shape, expected)):
            taken = Taken(self.domains, channels_first, layout, self.params)
            refuse_other_layout(shape, expected, found, taken, name)
        return axis

    def _output_dtype(self, dtype: Dtype) -> Dtype:
        if self.output_dtype is not None:
            largest = np.dtype(self.output_dtype)
            half = dtype.kind == largest.kind == "f" and dtype.itemsize < largest.itemsize
            return dtype.newbyteorder("=") if half else largest
        if dtype.kind == "O" or (self.keeps_integers and dtype.kind in "bui"):
            return dtype.newbyteorder("=")
        return kept_dtype(dtype)

    def _run(self, x: Array, draw: Any) -> Array:
        """Transform a checked batch."""
        if self.domains == ("labels",):
            return x
        out = self._transform(x, draw)
        if x.dtype == object and out.dtype == object:
            return object_array([self._as_promised(*pair) for pair in zip(out, x, strict=True)])
        if x.dtype == object:  # samples that now have one shape
            return out
        return self._as_promised(out, x)

    def _as_promised(self, out: Array, x: Array) -> Array:
        """The output in its dtype, in memory of its own."""
        shared = not x.flags.writeable and np.may_share_memory(out, x)
        return out.astype(self._output_dtype(x.dtype), copy=shared)

    def _pull_back(self, x: Array, grad: Array, draw: Any) -> Array:
        """Vector-Jacobian product at a checked batch; `grad` itself, in its memory, if it is passed on."""
        if x.dtype == object:
            grad = check_ragged_gradient(grad, [self._output_shape((1, *s.shape))[1:] for s in x])
            pairs = zip(self._gradient(x, grad, draw), grad, strict=True)
            return object_array([_in_type_of(given, pulled) for pulled, given in pairs])
        grad = check_gradient(grad, self._output_shape(x.shape))
        if grad.ndim == x.ndim:
            pulled = self._gradient(x, grad, draw)
        else:
            classes = [self._gradient(x, grad[:, k], draw) for k in range(grad.shape[1])]
            pulled = np.stack(classes, axis=1) if classes else np.empty((*x.shape[:1], 0, *x.shape[1:]))
        return _in_type_of(grad, pulled)


def _in_type_of(grad: Array, pulled: Array) -> Array:
    """A gradient in the floating type of the one that was given."""
    return pulled.astype(kept_dtype(grad.dtype), copy=False)


def _equal(a: Any, b: Any) -> bool:
    try:
        return np.shape(a) == np.shape(b) and bool(np.all(a == b))
    except (TypeError, ValueError):
        return False
