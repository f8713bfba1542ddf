"""The contract of a defence."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from ._core import draws, fingerprints, overrides, random, samples
from ._core.checks import (
    check_batch,
    check_integer,
    check_unknown,
    check_values,
    ignore_device_type,
    refuse_other_layout,
)
from ._core.errors import ArgumentError
from ._core.layout import channel_axis, expected_layouts, kept_dtype, other_layouts
from ._core.passes import Pass
from ._core.ranges import fits, looks_normalised, misfit, most_of, warn_caller
from ._core.remedies import Taken
from ._core.tensors import to_numpy
from ._core.typing import Arithmetic, Array, Dtype, Seed, Shape
from ._core.windows import windows
from .frameworks.blocks import transform_into
from .frameworks.dispatch import accelerated, call, pull_back
from .frameworks.native import natively

if TYPE_CHECKING:
    from ._core.html import Html

__all__ = ["Preprocessor"]

BOOLEAN = np.dtype(bool)
VIDEO_AXES = 4  # of a video, or of some of its frames
COMPUTED = ("_transform", "_gradient", "_draw", "_transform_labels")  # by `_arithmetic` as well
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
        Legal values of the parameter `gradient`, if it has one, the strongest last; an evaluation attacks
        with each of them.
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
    takes : {"view", "copy", "unchecked"}
        What `_transform` gets in a forward pass: a read-only view of checked values; a copy of them to write
        to, made in the pass that checks, unless the backward pass needs the batch; or, if the defence is
        deterministic, a view in which floats may be NaN or infinite, for a kernel that looks for them in the
        pass that computes and then calls `_check_seen`. A subclass that writes another `_transform` states
        it again.
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
        The arithmetic, on a checked batch, read-only unless `takes` is a copy; deterministic given `draw`.
    ``_draw(x, rng)``
        Stochastic defences: what is drawn for this batch. `rng` has the methods of a
        `numpy.random.Generator`, whose `size` begins with the number of samples: `rng.random(x.shape)`. Only
        the shape and dtype of `x` may be used.
    ``_gradient(x, grad, draw)``
        Vector-Jacobian product at `x`, or its estimate; the identity if not written.
    ``_transform_labels(y, draw)``
        Labels, where they change.
    ``_fit(x, y, **kwargs)``
        Learning, where there is any.
    ``_output_shape(shape)``
        Shape of the output, where it differs from that of the input.
    ``_arithmetic(shape, dtype)``
        A function of a batch of torch or JAX and of its namespace that does what `_transform` does and has
        the derivatives that `_gradient` offers, for tensors on an accelerator and inside compiled or
        transformed functions; None where there is none. It may check parameters against the shape. That
        function gets the draw, too, if the defence is stochastic, and the labels last, if it changes them,
        and then returns both.
    ``_transform_parts(parts, ndim)``
        For one recording or video that may be longer than memory: an iterator of its parts after the defence,
        with time along their first axis, from one of those before, which have `ndim` axes; None if it must be
        whole. By default a video goes through a few frames at a time, if nothing is drawn.

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
    takes: ClassVar[str] = "view"
    ragged: ClassVar[bool] = False
    paper: ClassVar[str] = ""
    known_attacks: ClassVar[tuple[str, ...]] = ()
    params: ClassVar[tuple[str, ...]] = ()
    _settable: ClassVar[tuple[str, ...]] = ()  # what a class written for ART states as `params`

    layout: str | None = None

    # Names of ART's, which classes written for it read and assign.
    _apply_fit: bool = False
    _apply_predict: bool = True
    _is_fitted: bool = False

    rng = random.SeedSource()
    _stream: random.SeedStream | None = None
    _range_doubted: bool = False  # a warning of the range of the data comes once
    _has_drawn: bool = False  # a public method that the class wrote
    _first_seed: tuple[Any, Any] = (None, None)  # of the pass that showed it, and the one drawn in its place
    _assumed: ClassVar[tuple[str, ...]] = ()  # facts that a class written for ART does not state
    _overridden: ClassVar[bool] = False  # whether a class wrote public methods, which `overrides` runs
    _methods: ClassVar[tuple[Any, ...]] = ()  # public methods of the class when it was made
    _beneath: ClassVar[dict[str, Any]] = {}  # of the methods that `overrides` puts into a class, its own

    def __init__(
        self,
        is_fitted: bool = False,
        apply_fit: bool | None = None,
        apply_predict: bool | None = None,
        *,
        device_type: str | None = None,
    ) -> None:
        ignore_device_type(device_type)
        self._is_fitted = bool(is_fitted)
        for name, value in (("apply_fit", apply_fit), ("apply_predict", apply_predict)):
            if value is not None:
                vars(self)[f"_{name}"] = bool(value)
                if not isinstance(inspect.getattr_static(type(self), name), property):
                    setattr(self, name, bool(value))

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        signature = inspect.signature(cls.__init__)
        ours = getattr(cls.__init__, "__module__", "").startswith(f"{__package__}.")
        not_kept = {"self", *NOT_KEPT} if ours else {"self"}
        if cls.__init__ is Preprocessor.__init__:
            not_kept.add("is_fitted")
        if _place(cls, "_transform") < _place(cls, "takes"):  # it is about another `_transform`
            cls.takes = "view"
        if min(_place(cls, name) for name in COMPUTED) < _place(cls, "_arithmetic"):  # of other hooks
            cls._arithmetic = Preprocessor._arithmetic  # type: ignore[method-assign]
        cls._settable = tuple(vars(cls).get("params", cls._settable))
        cls.params = tuple(
            name
            for name, parameter in signature.parameters.items()
            if name not in not_kept
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        )
        overrides.honour(cls, Preprocessor)
        cls._methods = overrides.methods_of(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        attribute = name == "transform" and overrides.wrote(type(self), "__call__")  # of a class for ART
        if name in overrides.PASSES and not attribute:
            raise ArgumentError(
                f"`{name}` must not be assigned to an object: tensors, chains and evaluations would not run "
                f"it. Write a class with this method: `class Mine({type(self).__name__})`."
            )
        super().__setattr__(name, value)

    @property
    def apply_fit(self) -> bool:
        """Whether a classifier applies the defence when it is trained."""
        return self._apply_fit

    @apply_fit.setter
    def apply_fit(self, value: bool) -> None:
        self._apply_fit = value

    @property
    def apply_predict(self) -> bool:
        """Whether a classifier applies the defence when it predicts."""
        return self._apply_predict

    @apply_predict.setter
    def apply_predict(self, value: bool) -> None:
        self._apply_predict = value

    # Public, final

    def __call__(self, x: Any, y: Any = None, *, index: Any = None) -> tuple[Any, Any]:
        """Apply the defence.

        Parameters
        ----------
        x : array_like or tensor
            Batch, first axis samples. NumPy arrays, and tensors of torch, TensorFlow and JAX, eager or
            traced; gradients flow through tensors as `estimate_gradient` states. Arrays of Dask, split
            along the samples alone, come back lazy.
        y : array_like or tensor, optional
            Labels of the batch.
        index : int or array_like of int, optional
            See `transform`.

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
        if not self._overridden:
            return self._start_call(x, y, index)
        with overrides.parents(self, "__call__"):
            return self._start_call(x, y, index)

    def transform(self, x: Any, *, index: Any = None, out: Any = None) -> Any:
        """Apply the defence to a batch without labels.

        Parameters
        ----------
        x : array_like or tensor
            Batch.
        index : int or array_like of int, optional
            Where in the data set the batch lies: the number of its first sample, or that of each sample, as
            a shuffled loader knows them. What a stochastic defence draws for a sample is a function of the
            seed and of this number. With an integer `rng`, or `frozen`, every call then has the same seed,
            so that the result does not depend on batches, on the order of calls, on threads or on processes.
            Without it each call draws anew, and numbers its samples from 0.
        out : array_like, optional
            Where the result is written, block by block, as `x` is read: arrays of zarr, of h5py, memory maps.
            It has the shape and the dtype of the result.

        Returns
        -------
        array or tensor
            Defended batch; `out`, if it was given.

        Examples
        --------
        >>> import numpy as np
        >>> from preshield import GaussianAugmentation
        >>> noise, x = GaussianAugmentation(0.1, augmentation=False, rng=0), np.zeros((7, 3))
        >>> batches = [noise.transform(x[i : i + 2], index=i) for i in (0, 2, 4, 6)]
        >>> bool((np.concatenate(batches) == noise.transform(x, index=0)).all())
        True
        """
        if out is not None:
            return self._start_into(x, out, index)
        if not self._overridden:
            return self._start_call(x, index=index)[0]
        with overrides.parents(self, "transform"):
            return self._start_call(x, index=index)[0]

    def transform_one(self, x: Any, *, index: Any = None) -> Any:
        """Apply the defence to one sample, as data pipelines hold it.

        Parameters
        ----------
        x : array_like, tensor or PIL.Image.Image
            An image `(H, W, C)`, or `(C, H, W)` by `channels_first`; a recording `(length,)`,
            `(length, C)` or `(C, length)`; a vector `(D,)`; for a defence of videos alone, a video. Arrays
            and tensors, eager or traced, are in the units of the defence, as in `transform`. The 256 levels
            of an image of Pillow, of mode L, LA, RGB or RGBA, span the `clip_values` of the defence, or
            [0, 1] if it states none; alpha passes through.
        index : int, optional
            Number of the sample in the data set; see `transform`.

        Returns
        -------
        array, tensor or PIL.Image.Image
            The defended sample, of the same kind.

        Raises
        ------
        TypeError, ValueError
            If `x` is a batch or cannot be defended; if the defence changes labels or the number of samples.

        Examples
        --------
        >>> from PIL import Image
        >>> from preshield import FeatureSqueezing
        >>> image = Image.new("RGB", (640, 480), (200, 100, 50))
        >>> FeatureSqueezing((0, 1), bit_depth=1).transform_one(image).getpixel((0, 0))
        (255, 0, 0)
        """
        return samples.transform_one(self, x, index)

    def forward(self, x: Any, y: Any = None) -> tuple[Any, Any]:
        """Apply the defence, as ART's framework classifiers do; the same as calling it."""
        return self(x, y)

    def estimate_forward(self, x: Any, y: Any = None) -> Any:
        """Apply the defence where only its gradient is wanted; the same as `transform`."""
        return self(x, y)[0]

    def estimate_gradient(self, x: Any, grad: Any, *, index: Any = None) -> Any:
        """Pull a gradient back through the defence.

        Parameters
        ----------
        x : array_like or tensor
            Batch at which the defence is differentiated.
        grad : array_like or tensor
            Gradient with respect to the output: shaped like it, or `(N, classes, ...)`.
        index : int or array_like of int, optional
            See `transform`.

        Returns
        -------
        array or tensor
            Gradient with respect to `x`; with the axis of classes if `grad` has one. Exact, or an
            estimate: see `gradient_kind` and the class. A stochastic defence draws anew unless `frozen`.
        """
        if not self._overridden:
            return self._start_gradient(x, grad, index)
        with overrides.parents(self, "estimate_gradient"):
            return self._start_gradient(x, grad, index)

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
        self._fit(self._checked(to_numpy(x)), None if y is None else to_numpy(y), **kwargs)
        self._is_fitted = True
        return self

    @property
    def is_fitted(self) -> bool:
        """Whether it can be called: always, unless there is something to learn first."""
        return self._is_fitted or not self._learns

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
        kept = self._kept_params()
        for name in self.params:
            if name not in kept:
                raise AttributeError(
                    f"{type(self).__name__} does not keep its parameter `{name}`; assign "
                    f"`self.{name} = {name}` in `__init__`."
                )
        return kept

    def _kept_params(self) -> dict[str, Any]:
        """Parameters that the constructor stored under their names."""
        kept = vars(self)  # not through a property, which may tell readers of a parameter about it
        return {
            name: kept[name] if name in kept else getattr(self, name)
            for name in self.params
            if name in kept or hasattr(self, name)
        }

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
        legal = tuple(dict.fromkeys((*self.params, *self._settable)))
        check_unknown(set(params), legal, type(self).__name__)
        if type(self)._check_params is not Preprocessor._check_params:
            return self._set_checked(params)
        checked = type(self)(**{**self.get_params(), **params})
        for name in params:
            setattr(self, name, getattr(checked, name))
        if not {"clip_values", "full_scale"}.isdisjoint(params):
            self.__dict__.pop("_range_doubted", None)
        return self

    def _set_checked(self, params: dict[str, Any]) -> Self:
        """Change parameters as ART does: assign them, and let `_check_params` refuse what is wrong."""
        before = vars(self).copy()
        try:
            for name, value in params.items():
                setattr(self, name, value)
            self._check_params()
        except Exception:
            vars(self).clear()
            vars(self).update(before)
            raise
        return self

    def _check_params(self) -> None:
        """Nothing to check; classes written for ART check their attributes here."""

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
        return f"{self._name}({', '.join(shown)})"

    def _repr_html_(self) -> str:
        """What a notebook shows: a card with parameters, facts, paper and known attacks."""
        from ._core import html

        return html.scoped(self._card())

    def __getstate__(self) -> Any:
        """All that it holds; to those who hash it for a cache, nothing of what calls leave behind."""
        return fingerprints.state_of(self) if fingerprints.is_hashed() else super().__getstate__()

    def __dask_tokenize__(self) -> Any:
        """What Dask takes for its identity."""
        from dask.base import normalize_token

        return normalize_token((type(self), fingerprints.state_of(self)))

    def __sklearn_tags__(self) -> Any:
        """Say to scikit-learn that this is a transformer without a requirement to be fitted."""
        from sklearn.utils import Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type=None,
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(),
            requires_fit=not self.is_fitted,
        )

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _changed_params(self) -> dict[str, Any]:
        parameters = inspect.signature(type(self).__init__).parameters
        defaults = {name: parameter.default for name, parameter in parameters.items()}
        if type(self).__init__ is Preprocessor.__init__:
            defaults = {name: getattr(type(self)(), name) for name in self.params}
        return {
            name: value
            for name, value in self._kept_params().items()
            if name not in defaults or not _equal(value, defaults[name])
        }

    def _card(self) -> "Html":
        from ._core import html

        stages = self._stages
        return html.card(
            self,
            self._name,
            {
                name: html.short(value)
                for name, value in self._kept_params().items()
                if not (stages and name == "defences")  # they have cards of their own
            },
            changed=self._changed_params(),
            stages=[stage._card() for stage in stages],
            domains=self.domains,
        )

    # Hooks, for subclasses

    def _transform(self, x: Array, draw: Any) -> Array:
        raise NotImplementedError(f"{type(self).__name__} must write _transform(x, draw).")

    def _draw(self, x: Array, rng: draws.Draws) -> Any:
        raise NotImplementedError(f"{type(self).__name__} is stochastic and must write _draw(x, rng).")

    def _gradient(self, x: Array, grad: Array, draw: Any) -> Array:
        return grad

    def _transform_labels(self, y: Array | None, draw: Any) -> Array | None:
        return y

    def _fit(self, x: Array, y: Array | None) -> None:
        """Nothing to learn."""

    def _output_shape(self, shape: Shape) -> Shape:
        return shape

    def _arithmetic(self, shape: Shape, dtype: Dtype) -> Arithmetic | None:
        return None

    def _transform_parts(self, parts: Iterator[Array], ndim: int) -> Iterator[Array] | None:
        """Parts of one recording or video as they come and go; None if it must be whole.

        A defence of images treats each frame of a video alone. A draw is one for the whole video.
        """
        if self.stochastic or "image" not in self.domains or ndim != VIDEO_AXES:
            return None
        return self._part_by_part(parts, ndim)

    def _part_by_part(self, parts: Iterator[Array], ndim: int) -> Iterator[Array]:
        """The parts of a defence that treats each entry along time alone.

        What it draws, if anything, it draws in one go, in the order of time: then each window goes on where
        the one before has ended.
        """
        if ndim == VIDEO_AXES:
            self._range_doubted = True  # a dark scene says nothing of the range of the whole
        if not self._uses_draw:
            yield from (self.transform(window[None])[0] for window in windows(parts))
            return
        seed, taken = np.concatenate([self._next_seed(), random.FROZEN.numbers(self, 1)]), 0
        for window in windows(parts):
            x = self._checked(window[None], runs=True)
            rng = draws.Draws(*draws.numbered(seed, 1), taken)
            begun = Pass(self, x, self._draw(x, rng))
            taken = rng.end
            yield begun.output()[0]

    # Seeds and draws; a Chain has those of its stages

    @property
    def _takes_index(self) -> bool:
        """Whether draws know the samples by number."""
        return not self.mixes_samples

    @property
    def _seed_words(self) -> int:
        return random.SEED_WORDS if self._uses_draw else 0

    def _fresh_seed(self, *, addressed: bool) -> Seed:
        if not self._uses_draw:
            return np.zeros(0, dtype=np.uint32)
        return self._own_stream().next(addressed=addressed)

    def _own_stream(self) -> random.SeedStream:
        if self._stream is None:  # for lack of a parameter `rng`; one for all threads, whichever is first
            self.__dict__.setdefault("_stream", random.SeedStream(getattr(self, "rng", None)))
        stream: random.SeedStream = self.__dict__["_stream"]
        return stream

    @property
    def _owns_stream(self) -> bool:
        """Whether seeds come from a random stream of its own, and not from its stages alone."""
        return self.stochastic and not self._stages

    @property
    def _has_one_seed(self) -> bool:
        """Whether all passes of samples that have numbers have the same seed, whatever is frozen later."""
        return not self._uses_draw or (random.FROZEN.seed(self) is None and self._own_stream().is_fixed)

    def _begin(self, x: Array, seed: Seed) -> Any:
        """The draw of one pass, from its seed, which the numbers of the samples may follow."""
        overrides.check_assignment(self)
        if not self._uses_draw:
            return None
        if len(seed) == random.SEED_WORDS and self._takes_index:
            seed = np.concatenate([seed, random.FROZEN.numbers(self, len(x))])
        rng = draws.Draws(*draws.numbered(seed, len(x)))
        draw = self._draw(x, rng)
        rng.close()
        return draw

    @property
    def _uses_draw(self) -> bool:
        """Whether `_draw` draws; public methods that a class writes may draw without it."""
        free = self._overridden and type(self)._draw is Preprocessor._draw
        return self.stochastic and not free

    @property
    def _learns(self) -> bool:
        return type(self)._fit is not Preprocessor._fit or overrides.wrote(type(self), "fit")

    @property
    def _stages(self) -> "Sequence[Preprocessor]":
        """Of what it is made; then its parameter `defences` holds them."""
        return ()

    @property
    def _changes_labels(self) -> bool:
        return type(self)._transform_labels is not Preprocessor._transform_labels

    @property
    def _wants_labels(self) -> bool:
        """Whether the data and the labels come from one method."""
        return False

    @property
    def _states_shape(self) -> bool:
        """Whether `_output_shape` is right; else a pass must run to know the shape of its output."""
        return True

    # What starts a pass

    _natively = natively
    _accelerated = accelerated
    _start_call = call
    _start_into = transform_into
    _start_estimate_gradient = pull_back

    def _start_gradient(self, x: Any, grad: Any, index: Any) -> Any:
        return self._estimate_gradient(x, grad) if index is None else pull_back(self, x, grad, index)

    # What estimate_gradient does; the GAN search also answers for latents, as ART's does

    def _estimate_gradient(self, x: Any, grad: Any) -> Any:
        return pull_back(self, x, grad)

    # What a pass and the frameworks ask, on NumPy arrays

    def _next_seed(self, *, addressed: bool = False) -> Seed:
        """The seed of the next pass; one for all passes, if it can be, of samples that have numbers."""
        frozen = random.FROZEN.seed(self)
        if frozen is None:
            return self._fresh_seed(addressed=addressed)
        return random.expand_seed(frozen, self._seed_words)

    @property
    def _draws_afresh(self) -> bool:
        """Whether the next pass has another draw than the last one."""
        return self.stochastic and random.FROZEN.seed(self) is None

    def _checked(self, x: Any, *, doubt: bool = True, runs: bool = False, kept: bool = False) -> Array:
        """`x` as an array that this defence can take: a read-only view, or what the fact `takes` says.

        If `doubt`, a batch that plainly has another layout than the one expected is refused. `takes` counts
        if `_run` comes next (`runs`); no copy is made if the batch is needed again as it was (`kept`).
        """
        if self.domains == ("labels",):
            return x  # type: ignore[no-any-return]
        channels_first, layout = self._axes
        peaks: list[float] = []
        takes = self.takes if runs and not self._overridden else "view"
        if (takes == "copy" and kept) or (takes == "unchecked" and self.stochastic):
            takes = "view"  # no seed may be drawn for a batch that is refused
        batch = check_batch(
            x,
            tuple(self.domains),
            channels_first,
            layout=layout,
            keywords=self.params,
            ragged=self.ragged,
            takes=takes,
            peaks=peaks,
        )
        if doubt and batch.dtype == object:
            for i, sample in enumerate(batch):
                if sample.ndim in (3, 4):
                    self._check_layout((1, *sample.shape), name=f"x[{i}]")
        elif doubt and batch.ndim in (4, 5):
            self._check_layout(batch.shape)
        if takes != "unchecked" or batch.dtype.kind != "f":
            self._check_range(batch, peaks)
        return batch

    def _check_seen(self, x: Array, peak: float | None) -> None:
        """What `_checked` left to the pass that computes: refuse NaN and infinity, doubt the range.

        Parameters
        ----------
        x : ndarray
            The checked batch.
        peak : float or None
            Its largest magnitude; None if there may be NaN or infinity in it.
        """
        peaks = [] if peak is None else [peak]
        if peak is None:
            check_values("x", x, peaks)
        if x.dtype.kind == "f":
            self._check_range(x, peaks)

    def _check_shape(self, shape: Shape, dtype: Dtype = BOOLEAN, *, doubt: bool = True) -> None:
        """Refuse a shape or a dtype that no batch may have, before its values are known."""
        if self.domains != ("labels",):
            check_values("x", np.empty(0, dtype))
            channels_first, layout = self._axes
            x = np.broadcast_to(np.False_, shape)  # of a type without values to check
            check_batch(x, tuple(self.domains), channels_first, layout=layout, keywords=self.params)
            if doubt and len(shape) in (4, 5):
                self._check_layout(shape)

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
        peak = max(peaks, default=0.0)
        value = getattr(self, parameter)
        pixels = (
            "image" in self.domains
            and x.dtype != object
            and parameter == "clip_values"
            and bool(np.all(np.asarray(value[0]) >= 0))
        )
        if not fits(x, peaks, most) or (pixels and peak > most <= 1 and looks_normalised(x)):
            self._doubt_range(misfit(x, parameter, value, most))

    def _doubt_range(self, message: str) -> None:
        """Warn of the range of the data, once for each object."""
        if not self._range_doubted:
            self._range_doubted = True
            warn_caller(f"{type(self).__name__}: {message}")

    def _output_dtype(self, dtype: Dtype) -> Dtype:
        if self.output_dtype is not None:
            largest = np.dtype(self.output_dtype)
            half = dtype.kind == largest.kind == "f" and dtype.itemsize < largest.itemsize
            return dtype.newbyteorder("=") if half else largest
        if dtype.kind == "O" or (self.keeps_integers and dtype.kind in "bui"):
            return dtype.newbyteorder("=")
        return kept_dtype(dtype)


def _place(cls: type, name: str) -> int:
    """How far up among the parents of a class an attribute was written."""
    return next(i for i, c in enumerate(cls.__mro__) if name in vars(c))


def _equal(a: Any, b: Any) -> bool:
    try:
        return np.shape(a) == np.shape(b) and bool(np.all(a == b))
    except (TypeError, ValueError):
        return False
