"""What defences that are made of others have in common."""

from collections.abc import Sequence
from typing import Any

from ._core.checks import check_bool
from ._core.errors import ArgumentError
from ._core.typing import Dtype
from .interop.foreign import adapted
from .preprocessor import Preprocessor

__all__ = ["_Composite"]


class _Composite(Preprocessor):
    """Base class of a defence that is made of others, its stages: their facts, layouts and types.

    Parameters
    ----------
    defences : list of Preprocessor
        Stages, preshield's or ART's; each is applied whatever its own `apply_fit` and `apply_predict` say.
    apply_fit : bool
        Whether a classifier applies it when it is trained.
    apply_predict : bool
        Whether a classifier applies it when it predicts.
    """

    def __init__(self, defences: Any, apply_fit: bool, apply_predict: bool) -> None:
        if not isinstance(defences, list | tuple):
            raise ArgumentError(f"`defences` must be a list of defences, got {type(defences).__name__}.")
        if not defences:
            raise ArgumentError("`defences` must hold at least one defence, got an empty list.")
        stages = adapted(defences)
        for i, stage in enumerate(stages):
            if not isinstance(stage, Preprocessor):
                raise ArgumentError(
                    f"`defences[{i}]` must be a defence of preshield or ART, got {stage!r} of type "
                    f"{type(stage).__module__}.{type(stage).__name__}."
                )
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict)
        self.defences = defences
        self._adapted = stages
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        if not self.domains:
            of_each = ", ".join(f"{d._name}: {'/'.join(d.domains)}" for d in stages)
            raise ArgumentError(f"`defences` must have a domain in common, got {of_each}.")

    @property
    def domains(self) -> tuple[str, ...]:  # type: ignore[override]
        """Domains that every stage has; labels aside, which pass through other stages."""
        of_data = [d.domains for d in self._stages if d.domains != ("labels",)] or [("labels",)]
        return tuple(domain for domain in of_data[0] if all(domain in other for other in of_data))

    @property
    def gradient_kind(self) -> str:  # type: ignore[override]
        """The weakest of the stages: identity, then surrogate, then exact."""
        kinds = {d.gradient_kind for d in self._stages}
        return next(kind for kind in ("identity", "surrogate", "exact") if kind in kinds)

    @property
    def optimises_at_test_time(self) -> bool:  # type: ignore[override]
        """Whether a stage optimises."""
        return any(d.optimises_at_test_time for d in self._stages)

    @property
    def is_fitted(self) -> bool:
        """Whether every stage is fitted."""
        return all(d.is_fitted for d in self._stages)

    @property
    def _papers(self) -> str:
        return ", ".join(dict.fromkeys(d.paper for d in self._stages))

    @property
    def _attacks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(attack for d in self._stages for attack in d.known_attacks))

    @property
    def _learns(self) -> bool:
        return any(d._learns for d in self._stages)

    def _output_dtype(self, dtype: Dtype) -> Dtype:
        for stage in self._stages:
            dtype = stage._output_dtype(dtype) if stage.domains != ("labels",) else dtype
        return dtype

    @property
    def _axes(self) -> tuple[bool | None, str | None]:
        said = {d._axes for d in self._stages} - {(None, None)}
        return said.pop() if len(said) == 1 else (None, None)

    @property
    def _takes_index(self) -> bool:
        return all(d._takes_index for d in self._stages)

    @property
    def _stages(self) -> Sequence[Preprocessor]:
        """The stages; those of ART, which `defences` holds as they are, adapted once."""
        self._adapted = adapted(self.defences, self._adapted)
        return self._adapted
