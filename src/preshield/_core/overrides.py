"""Classes that write public methods themselves, as ART's defences and people's BPDA do.

Every path runs them: tensors, traced graphs, chains, evaluations. To that end a method that starts a pass
takes the place of each; the pass runs the one that was written, on NumPy arrays. Within a pass these methods
are plain Python: `self(x)` is the whole defence, `super().__call__(x)` is that of the parent class, and the
parent draws from the seed of the pass.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any

import numpy as np

from .errors import ArgumentError
from .generators import Generators, peeked_seed, seeded
from .layout import as_array, object_array
from .random import SEED_WORDS, SeedStream
from .tensors import framework, to_numpy
from .typing import Array, Defence, Seed

__all__ = [
    "PASSES",
    "Written",
    "check_assignment",
    "honour",
    "in_pass_of",
    "methods_of",
    "parents",
    "wrote",
]

METHODS = ("__call__", "transform", "estimate_gradient")  # of a pass
FRAMEWORK = ("forward", "estimate_forward")  # get tensors in ART
PASSES = (*METHODS, *FRAMEWORK)
NO_INDEX = np.zeros(0, dtype=np.uint32)
EVERYTHING = ("image", "video", "audio", "features")


class _Scope:
    """A stretch of time in which a defence runs methods that its class wrote.

    What its hooks draw meanwhile follows from the seed of the pass: the first pass through the hooks of the
    parent class has the very seed, further ones have seeds made from it, and gradients those of the passes
    in the same order.
    """

    def __init__(self, defence: Defence, seed: Seed | None, index: Array) -> None:
        self.defence = defence
        self.seed = seed
        self.index = index
        self.backward = False
        self._taken = {False: 0, True: 0}

    def next(self, seed: Seed, words: int) -> Seed:
        taken = self._taken[self.backward]
        self._taken[self.backward] += 1
        if taken:
            mixed = np.random.SeedSequence([taken, *seed])
            seed = mixed.generate_state(words).astype(np.uint32, copy=False)
        return np.concatenate([seed[:words], self.index]) if words else seed[:0]


_scopes: ContextVar[tuple[_Scope, ...]] = ContextVar("_scopes", default=())


def in_pass_of(defence: Defence) -> _Scope | None:
    """The innermost scope of a defence in this thread."""
    return next((scope for scope in reversed(_scopes.get()) if scope.defence is defence), None)


@contextmanager
def _scope(defence: Defence, seed: Seed | None, index: Array = NO_INDEX) -> Iterator[None]:
    token = _scopes.set((*_scopes.get(), _Scope(defence, seed, index)))
    try:
        yield
    finally:
        _scopes.reset(token)


# The class


def honour(cls: type[Defence], base: type[Defence]) -> None:
    """Keep the public methods that a class writes, and put methods that start a pass in their places."""
    for name in FRAMEWORK:
        if _found(cls, name) is not vars(base)[name]:
            raise ArgumentError(
                f"`{cls.__name__}.{name}` must not be written: only tensors would pass through it. Write "
                "`__call__(x, y)` and `estimate_gradient(x, grad)`, which get NumPy arrays in place of "
                "tensors; or derive the class from ART's PreprocessorPyTorch or PreprocessorTensorFlowV2, "
                "whose objects Chain and evaluate take, too."
            )
    if _found(cls, "frozen") is not vars(base)["frozen"]:
        raise ArgumentError(
            f"`{cls.__name__}.frozen` must not be written: the base class repeats the draws, those of "
            "`_draw(x, rng)` and those from NumPy's global state."
        )
    found = {name: _found(cls, name) for name in (*METHODS, "fit")}
    written = [
        name
        for name, method in found.items()
        if not _is_known(method, base, name) and hasattr(method, "__get__")  # others are attributes
    ]
    for name in written:
        setattr(cls, name, _started(cls, name, found[name]))
    if "__call__" in written and _is_known(found["transform"], base, "transform"):
        cls.transform = _derived(cls, "transform", _transform_from_call)  # type: ignore[method-assign]
    elif "transform" in written and "__call__" not in written:
        cls.__call__ = _derived(cls, "__call__", _call_from_transform)  # type: ignore[method-assign]
    if set(written) & set(METHODS):
        cls._overridden = True
        cls._beneath = {name: vars(cls)[name] for name in CONTRACT if name in vars(cls)}
        for name, method in CONTRACT.items():
            setattr(cls, name, method)
        _state_facts(cls, base)


def wrote(cls: type[Defence], name: str) -> bool:
    """Whether a class or one of its parents wrote a public method."""
    return _written(cls, name) is not None


def _written(cls: type, name: str) -> Any:
    methods = (vars(c).get(name) for c in cls.__mro__)
    return next((method for method in methods if getattr(method, "written", False)), None)


def _base_of(defence: Defence) -> Any:
    return next(c for c in type(defence).__mro__ if "_start_call" in vars(c))


def _found(cls: type, name: str) -> Any:
    return inspect.getattr_static(cls, name)


def _is_known(method: Any, base: type, name: str) -> bool:
    return method is vars(base)[name] or hasattr(method, "written")


def _state_facts(cls: type[Defence], base: type[Defence]) -> None:
    """State what the class does not state of its methods: as little as possible is promised."""
    own_gradient = wrote(cls, "estimate_gradient") or cls._gradient is not base._gradient
    if "gradient_kind" not in vars(cls) and own_gradient:
        cls.gradient_kind = "surrogate"
    if not wrote(cls, "__call__") or _has_hooks(cls, base):
        return
    # Written as for ART, which takes any data, and applies a defence in training by default.
    stated = {name for c in cls.__mro__[: cls.__mro__.index(base)] for name in vars(c)}
    for name, value in {"domains": EVERYTHING, "ragged": True, "_apply_fit": True}.items():
        if name not in stated:
            setattr(cls, name, value)
            cls._assumed = (*cls._assumed, name)


def _has_hooks(cls: type, base: type) -> bool:
    """Whether a class computes in `_transform`; beside `__call__`, that is a helper of the same name."""
    owner = next(c for c in cls.__mro__ if "_transform" in vars(c))
    return owner is not base and not getattr(vars(owner).get("__call__"), "written", False)


def _started(cls: type, name: str, function: Any) -> Callable[..., Any]:
    """The method that starts a pass in the place of one that was written."""
    both = {"__call__", "transform"} <= set(vars(cls))

    def start(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        written = function.__get__(self, type(self))
        if name == "fit":
            return _fit(self, written, x, *args, **kwargs)
        through_super = getattr(type(self), name) is not method
        if in_pass_of(self) is not None or through_super or (name == "transform" and both):
            return written(x, *args, **kwargs)
        if name == "transform" and kwargs.get("out") is not None:
            return self._start_into(x, **kwargs)
        if name == "transform":
            return self(x, *args, **kwargs)[0]
        if len(args) + len(kwargs.keys() - {"index"}) > 1 or set(kwargs) - {"y", "grad", "index"}:
            return written(x, *args, **kwargs)  # of its own signature
        return getattr(self, f"_start_{name.strip('_')}")(x, *args, **kwargs)

    method = wraps(function)(start) if hasattr(function, "__name__") else start
    method.written = True  # type: ignore[attr-defined]
    return method


def _fit(defence: Defence, written: Any, x: Any, y: Any = None, *args: Any, **kwargs: Any) -> Any:
    y = y if framework(y) == "numpy" else to_numpy(y)
    written(defence._checked(to_numpy(x)), y, *args, **kwargs)
    defence._is_fitted = True
    return defence


def _derived(cls: Any, name: str, make: Callable[[Any], Any]) -> Callable[..., Any]:
    """`transform` from the `__call__` of a class, or the reverse; `super()` of its children finds it."""
    function = make(cls)

    def derived(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        through_super = getattr(type(self), name) is not derived
        if in_pass_of(self) is not None or through_super:
            return function(self, x, *args)
        if name == "__call__":
            return self._start_call(x, *args, **kwargs)
        return self._start_into(x, **kwargs) if kwargs.get("out") is not None else self(x, **kwargs)[0]

    derived.written = False  # type: ignore[attr-defined]
    derived.__name__, derived.__doc__ = name, getattr(super(cls, cls), name).__doc__
    return derived


def _transform_from_call(cls: Any) -> Callable[..., Any]:
    call = vars(cls)["__call__"]
    return lambda self, x: call(self, x, None)[0]


def _call_from_transform(cls: Any) -> Callable[..., Any]:
    transform = vars(cls)["transform"]
    return lambda self, x, y=None: (transform(self, x), y)


def methods_of(cls: Any) -> tuple[Any, ...]:
    """The public methods that `PASSES` names."""
    return (cls.__call__, cls.transform, cls.estimate_gradient, cls.forward, cls.estimate_forward)


def check_assignment(defence: Defence) -> None:
    """Refuse a pass through a class to which a public method was assigned after it was made."""
    if methods_of(type(defence)) == type(defence)._methods:
        return
    base = _base_of(defence)
    for name in PASSES:
        method = getattr(type(defence), name)
        if hasattr(method, "__get__") and not _is_known(method, base, name):
            raise ArgumentError(
                f"`{type(defence).__name__}.{name}` was assigned after the class was made, so that tensors, "
                f"chains and evaluations would not run it; derive a class that writes `{name}`."
            )


# One pass


class Written:
    """The draw of a class that writes public methods: these methods as hooks, from the seed of a pass.

    The methods run with the shared random generators set from the seed if they draw from these, which the
    first run shows. So the backward pass sees the draw of the forward pass.
    """

    def __init__(self, defence: Defence, x: Array, seed: Seed) -> None:
        self.defence = defence
        self.x = x
        seed, self.index = np.split(seed, [defence._seed_words])
        peeked, drawn = defence._first_seed
        self.seed = drawn if np.array_equal(seed, peeked) else seed
        self.labels: Any = None
        self._relabelled: tuple[Any, Any] | None = None  # labels, and what they became
        self._of_hooks: list[Any] = []

    def _transform(self, x: Array, _: Any) -> Any:
        """The data after `__call__`; what it returns of the labels is kept."""
        defence = self.defence
        if not _is_free(defence):
            return defence._transform(x, self.of_hooks())
        out, labels = self._call("__call__", x, self.labels)
        if x.dtype != object and out.dtype.kind not in "buif":
            raise ArgumentError(
                f"`{type(defence).__name__}` must return real numbers, got an array of dtype {out.dtype}."
            )
        if getattr(type(defence).__call__, "written", False):
            self._relabelled = (self.labels, labels)
        return out

    def _transform_labels(self, y: Any, _: Any) -> Any:
        """The labels after the `__call__` that was written."""
        if not wrote(type(self.defence), "__call__"):
            return self.defence._transform_labels(y, self.of_hooks())
        if self._relabelled is None or (self._relabelled[0] is None and y is not None):
            self._relabelled = (y, self._call("labels", self.x, y)[1])
        return self._relabelled[1]

    def _gradient(self, x: Array, grad: Array, _: Any) -> Array:
        """The gradient after `estimate_gradient`."""
        name = type(self.defence).__name__
        if not wrote(type(self.defence), "estimate_gradient"):
            pulled = self.defence._gradient(x, grad, self.of_hooks())
            remedy = "its `__call__` changes the shape, so write `estimate_gradient(x, grad)`, too"
        else:
            pulled = _as_batch(self._run("estimate_gradient", x, grad))
            remedy = "return one gradient for each value of `x`"
        if pulled.shape != x.shape:
            raise ArgumentError(
                f"The gradient of {name} must have the shape {x.shape} of `x`, got {pulled.shape}; {remedy}."
            )
        return pulled

    def of_hooks(self) -> Any:
        """The draw of the hooks beneath."""
        if not self._of_hooks:
            with _scope(self.defence, self.seed, self.index):
                draw = self.defence._begin(self.x, self.defence._next_seed())
                if self.defence._wants_labels:
                    draw.labels = self.labels
            self._of_hooks.append(draw)
        return self._of_hooks[0]

    def _call(self, name: str, x: Array, y: Any) -> tuple[Array, Any]:
        result = self._run(name, x, y)
        if not isinstance(result, tuple) or len(result) != 2:
            raise ArgumentError(
                f"`{type(self.defence).__name__}.__call__` must return a pair (x, y), got "
                f"{type(result).__name__}; without labels return (x, None)."
            )
        out, labels = result
        return _as_batch(out), y if _same(labels, y) else labels

    def _run(self, name: str, *args: Any) -> Any:
        """Run a method that was written, on copies that it may write to, and let it draw from the seed."""
        defence = self.defence

        def run() -> Any:
            with _scope(defence, self.seed, self.index):
                method = (
                    _written(type(defence), "__call__") if name == "labels" else getattr(type(defence), name)
                )
                return method(defence, *map(_copied, args))

        if not _draws(defence):
            before = Generators()
            result = run()
            if Generators() == before:
                return result
            before.put_back()
            # It draws; so from the seed of the pass, now and from now on.
            vars(defence)["_has_drawn"] = True
            if not isinstance(_found(type(defence), "stochastic"), property):
                vars(defence)["stochastic"] = True
            self._refuse_index()
            if np.array_equal(peeked_seed(), self.seed):
                # Nothing was drawn to make it; in a graph it returns.
                vars(defence)["_first_seed"] = (self.seed, _fresh_seed(defence, addressed=False))
                self.seed = defence._first_seed[1]
        self._refuse_index()
        with seeded(self.seed):
            return run()

    def _refuse_index(self) -> None:
        if len(self.index):
            raise ArgumentError(
                f"`index` must be left out for {self.defence!r}: its own methods draw, and do not know the "
                "numbers of the samples; draw in `_draw(x, rng)`."
            )


def _draws(defence: Defence) -> bool:
    """Whether the methods that were written draw; hooks draw from seeds."""
    return bool(defence._has_drawn or (defence.stochastic and not _of_hooks(defence, "_seed_words")))


def _is_free(defence: Defence) -> bool:
    """Whether the class wrote what decides about the shape, but not `_output_shape`."""
    return wrote(type(defence), "__call__") or wrote(type(defence), "transform")


def _copied(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype == object:
        return object_array([_copied(sample) for sample in value]) if value.ndim == 1 else value.copy()
    return value.copy()


def _same(a: Any, b: Any) -> bool:
    if a is b or not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray):
        return a is b
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return (
        np.array_equal(a, b)
        if a.dtype != object
        else all(p is q for p, q in zip(a.flat, b.flat, strict=True))
    )


def _as_batch(values: Any) -> Array:
    return to_numpy(values) if framework(values) != "numpy" else as_array(values)


# What takes the place of these methods of the contract in a class that writes public methods


@cache
def _beneath(cls: Any, name: str) -> Any:
    """The method that stands beneath: in a scope the hooks are meant."""
    kept = (vars(c).get("_beneath", {}).get(name, vars(c).get(name)) for c in cls.__mro__)
    return next(method for method in kept if method not in (None, CONTRACT[name]))


def _of_hooks(defence: Defence, name: str) -> Any:
    cls: Any = type(defence)
    return _beneath(cls, name).__get__(defence, type(defence))


def _begin(self: Defence, x: Array, seed: Seed) -> Any:
    if in_pass_of(self) is not None:
        return _of_hooks(self, "_begin")(x, seed)
    check_assignment(self)
    return Written(self, x, seed)


def _next_seed(self: Defence, *, addressed: bool = False) -> Seed:
    scope = in_pass_of(self)
    if scope is None or scope.seed is None:
        seed: Seed = _of_hooks(self, "_next_seed")(addressed=addressed)
        return seed
    return scope.next(scope.seed, self._seed_words)


def _fresh_seed(self: Defence, *, addressed: bool) -> Seed:
    seed: Seed = _of_hooks(self, "_fresh_seed")(addressed=addressed)
    if len(seed) or in_pass_of(self) is not None:
        return seed
    if not _draws(self):
        return peeked_seed()  # and nothing is drawn if it draws nothing
    stream: SeedStream = vars(self).setdefault("_stream", SeedStream(None))
    return stream.next()


def _seed_words(self: Defence) -> int:
    words = int(_of_hooks(self, "_seed_words"))
    return words if in_pass_of(self) is not None else max(words, SEED_WORDS)


def _takes_index(self: Defence) -> bool:
    return bool(_of_hooks(self, "_takes_index")) and (in_pass_of(self) is not None or not _draws(self))


def _of_labels(self: Defence, name: str) -> bool:
    written = in_pass_of(self) is None and wrote(type(self), "__call__")
    return written or bool(_of_hooks(self, name))


def _states_shape(self: Defence) -> bool:
    return not _is_free(self) and bool(_of_hooks(self, "_states_shape"))


CONTRACT: dict[str, Any] = {
    "_begin": _begin,
    "_next_seed": _next_seed,
    "_fresh_seed": _fresh_seed,
    "_seed_words": property(_seed_words),
    "_takes_index": property(_takes_index),
    "_changes_labels": property(lambda self: _of_labels(self, "_changes_labels")),
    "_wants_labels": property(lambda self: _of_labels(self, "_wants_labels")),
    "_states_shape": property(_states_shape),
}


@contextmanager
def parents(defence: Defence, name: str) -> Iterator[None]:
    """A public method of the base class, which may have been called through `super()`."""
    scope = in_pass_of(defence)
    if scope is None:
        if getattr(type(defence), name) is getattr(_base_of(defence), name):
            yield
            return
        with _scope(defence, None):
            yield
        return
    before, scope.backward = scope.backward, name == "estimate_gradient"
    try:
        yield
    finally:
        scope.backward = before
