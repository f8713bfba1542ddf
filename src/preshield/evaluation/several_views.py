"""What a classifier that compares several views of a sample is, whatever it makes of them."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.checks import check_values
from .._core.errors import ArgumentError
from .._core.optional import require
from .._core.tensors import on_device, to_numpy
from .._core.typing import Array, Shape
from ..chain import Chain
from ..interop.foreign import as_defence
from ..preprocessor import Preprocessor
from .classifiers import PredictOnly, as_classifier, has_gradients, is_a, predictor

if TYPE_CHECKING:
    from .views_classifier import Rule

__all__ = ["SeveralViews", "as_views", "names_of"]


class SeveralViews(ABC):
    """A classifier that sees a batch through several defences, and rejects samples.

    It has the facts of a defence, so that reports and tables tell of it as of one.

    Parameters
    ----------
    classifier : object
        What `predictor` takes.
    views : sequence of Preprocessor or None
        What it sees, as `as_views` returns it: the batch through each of these, or as it is.
    """

    domains: tuple[str, ...] = ("image", "video", "audio", "features")
    stochastic: bool = False
    gradient_kind: str = "exact"
    changes_shape: bool = False
    optimises_at_test_time: bool = False
    paper: str
    known_attacks: tuple[str, ...]
    _takes: str  # the parameters that hold the classifier and the views, as messages call them
    _sees: str
    _labels_by: str  # the public method that returns labels

    def __init__(self, classifier: Any, views: Sequence[Preprocessor | None]) -> None:
        predictor(classifier, self._takes)
        self.classifier = classifier
        self.views = tuple(views)
        defences = [view for view in views if view is not None]
        kinds = {defence.gradient_kind for defence in defences}
        self.gradient_kind = next((k for k in ("identity", "surrogate") if k in kinds), "exact")
        self.stochastic = any(defence.stochastic for defence in defences)
        self.optimises_at_test_time = any(defence.optimises_at_test_time for defence in defences)
        self.domains = tuple(
            domain for domain in type(self).domains if all(domain in d.domains for d in defences)
        )

    @abstractmethod
    def get_params(self) -> dict[str, Any]:
        """Parameters by name, for the records of an evaluation."""

    @abstractmethod
    def _decide(self, x: Any) -> Array:
        """Label of each sample, shape (N,); -1 where it is rejected."""

    @abstractmethod
    def _rule(self) -> "Rule":
        """What is decided by the views, for an attack that differentiates it."""

    def _adapted(self, classifier: Any) -> Any:
        """The classifier of `as_classifier`, with what is known of it beyond a few samples."""
        return classifier

    def for_attacks(self, x: Any) -> Any:
        """The same as a classifier that `evaluate` attacks, with gradients if the model has them.

        Parameters
        ----------
        x : array_like, shape (N, ...)
            A few samples.

        Returns
        -------
        ViewsClassifier or PredictOnly
            Its `predict` returns what an attacker can differentiate: how far each class is from being the
            accepted label. Whether an attack succeeded is decided by the views themselves.

        Raises
        ------
        ValueError
            If the samples do not fit the classifier.
        """
        rule = self._rule()
        x = to_numpy(x).astype(np.float32, copy=False)
        seen = next(self._seen(x)).astype(np.float32, copy=False)
        classifier = self._adapted(as_classifier(self.classifier, seen, self._takes))
        if not has_gradients(classifier):
            # An evaluation tells stochastic views apart by what they are.
            apart = copy.copy(self)
            apart.views = tuple(map(_apart, self.views))
            return PredictOnly(apart._decide, x.shape[1:], apart.views)
        from .views_classifier import ViewsClassifier

        return ViewsClassifier(classifier, self.views, rule, input_shape=x.shape[1:])

    def for_art(self, x: Any, clip_values: tuple[float, float]) -> Any:
        """The same as a classifier of ART, for its attacks.

        Parameters
        ----------
        x : array_like, shape (N, ...)
            A few samples.
        clip_values : tuple of float
            Smallest and largest value of a sample.

        Returns
        -------
        PyTorchClassifier or DefendedClassifier

        Raises
        ------
        ValueError
            As `for_attacks`; or if the model has no gradients.
        ImportError
            If ART is missing.
        """
        require("art", extra="art")
        from .art_bridge import bridge
        from .defended import DefendedModel

        found = self.for_attacks(x)
        if not has_gradients(found):
            raise ArgumentError(
                f"`{self._takes}` must be a model with gradients, such as a torch module, got "
                f"{self.classifier!r}; for attacks on labels, wrap `{type(self).__name__}."
                f"{self._labels_by}` in a BlackBoxClassifier of ART."
            )
        model = DefendedModel(
            found, clip_values=clip_values, nb_classes=found.nb_classes, input_shape=found.input_shape
        )
        return bridge(model)

    def _repr_html_(self) -> str:
        """What a notebook shows: a card with parameters, facts, paper and known attacks."""
        from .._core import html

        parameters = {name: html.short(value) for name, value in self.get_params().items()}
        return html.scoped(html.card(self, type(self).__name__, parameters, domains=self.domains))

    def _batch(self, x: Any) -> Any:
        """A batch, checked; on a device if the model, a torch module, can have all views there."""
        stays = on_device(x) and is_a(self.classifier, "torch.nn", "Module")
        x = x if stays else to_numpy(x)
        if stays or x.dtype != object:
            if not stays:
                check_values("x", x)
            self._check_sizes(tuple(x.shape))
        return x

    def _seen(self, x: Any, index: Any = None) -> Iterator[Any]:
        """The batch in each view; one that goes on after the last, as the second blur, starts there."""
        seen = x
        done: tuple[Preprocessor, ...] = ()
        for view in self.views:
            stages = (view,) if view is not None and view.stochastic else _stages(view)
            if stages[: len(done)] != done or any(stage.stochastic for stage in done):
                seen, done = x, ()
            for stage in stages[len(done) :]:
                seen = stage(seen, index=index if stage.stochastic else None)[0]
            done = stages
            yield seen

    def _check_sizes(self, shape: Shape) -> None:
        for view in self.views:
            if view is not None and view._output_shape(shape)[:1] != shape[:1]:
                raise ArgumentError(
                    f"`{self._named(view)}` must keep the number of samples, got {view!r}, which turns "
                    f"{shape[0]} into {view._output_shape(shape)[0]}; pass augmentation=False to add noise "
                    "to a view."
                )

    def _named(self, view: Preprocessor) -> str:
        """How messages call a view."""
        given = [each for each in self.views if each is not None or self._sees == "views"]
        return f"{self._sees}[{next(i for i, each in enumerate(given) if each is view)}]"


def as_views(views: Any, name: str, *, as_it_is: bool = True) -> list[Preprocessor | None]:
    """Views as a list of defences of preshield, and None for the batch as it is, if that may be one.

    Raises
    ------
    ArgumentError
        If it is no list of defences of samples; messages call it `name`.
    """
    also, listed = (" and None", ", or None for the input itself") if as_it_is else ("", "")
    if not isinstance(views, list | tuple):
        raise ArgumentError(f"`{name}` must be a list of defences{also}, got {type(views).__name__}.")
    if not views:
        one = "view" if as_it_is else "defence"
        raise ArgumentError(f"`{name}` must hold at least one {one}, got none.")
    found = [as_defence(view) for view in views]
    for i, view in enumerate(found):
        if view is None and as_it_is:
            continue
        if not isinstance(view, Preprocessor):
            raise ArgumentError(
                f"`{name}[{i}]` must be a defence of preshield or ART{listed}, got "
                f"{view!r} of type {type(view).__module__}.{type(view).__name__}."
            )
        if view.domains == ("labels",):
            raise ArgumentError(
                f"`{name}[{i}]` must change samples, got {view!r}, which is about labels; leave it out."
            )
    return found


def names_of(views: Sequence[Preprocessor | None]) -> tuple[str, ...]:
    """What each view is, in a few words; equal ones are numbered."""
    names: list[str] = []
    for view in views:
        name = " + ".join(stage._name for stage in _stages(view)) or "input"
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return tuple(names)


def _apart(view: Preprocessor | None) -> Preprocessor | None:
    """The same view, with stochastic stages that no other view has."""
    if view is None or not view.stochastic:
        return view
    changes = {"defences": list(map(_apart, view._stages))} if view._stages else {}
    return copy.copy(view).set_params(**changes)


def _stages(view: Preprocessor | None) -> tuple[Preprocessor, ...]:
    if view is None:
        return ()
    return tuple(view._stages) if isinstance(view, Chain) else (view,)
