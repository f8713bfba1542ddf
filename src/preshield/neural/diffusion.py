"""Any diffusion model of images: how noise is added, and how a network takes it away again."""

import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np

from .._core.errors import ArgumentError, noted
from .._core.tensors import to_numpy
from .._core.typing import Array, Shape
from .torch_module import TorchModule

__all__ = ["SCHEDULES", "Diffusion", "Noise", "respaced", "schedule_of"]

SCHEDULES = ("linear", "cosine")
PREDICTIONS = ("epsilon", "v_prediction", "sample")  # as diffusers calls them

Noise = Callable[[int], Array]
"""`block -> normals (N, C, H, W)`: block 0 is added to the images, block `t + 1` on the way back to `t`."""


class Diffusion:
    """A network that finds the noise in an image, with the schedule by which noise was added.

    After step `t` an image is ``sqrt(a[t]) * x + sqrt(1 - a[t]) * noise``, the noise standard normal.

    Parameters
    ----------
    network : torch.nn.Module
        Called with noisy images `(N, C, H, W)` and their steps `(N,)`, numbered from 0. It returns its
        prediction, `(N, C, H, W)` or, if variances follow, `(N, 2 * C, H, W)`; a tensor, a tuple that begins
        with it, or an object with the attribute ``sample``, as in diffusers.
    schedule : {"linear", "cosine"}, array_like or object
        As for `schedule_of`. An object may say in ``config.prediction_type`` what the network predicts:
        "epsilon", the noise, if nothing is said; "sample", the image; "v_prediction",
        ``sqrt(a) * noise - sqrt(1 - a) * x``.
    saturated : bool, default False
        Whether images that the network finds are saturated to [-1, 1] in each step, and the noise is what is
        left. From noise alone errors would grow beyond all bounds.

    Raises
    ------
    ValueError
        If the schedule breaks its rule, or the network predicts something else.

    Notes
    -----
    Numbers are those of the network, but `float32` at least; the network computes where its weights lie and
    as in prediction, and has its flags back afterwards.
    """

    def __init__(self, network: Any, schedule: Any, *, saturated: bool = False) -> None:
        self.alphas = schedule_of(schedule)
        self.prediction = getattr(getattr(schedule, "config", None), "prediction_type", "epsilon")
        if self.prediction not in PREDICTIONS:
            raise ArgumentError(
                f"`schedule.config.prediction_type` must be one of {', '.join(map(repr, PREDICTIONS))}, got "
                f"{self.prediction!r}."
            )
        self.saturated = saturated
        self.network = TorchModule(network)
        self._torch = sys.modules["torch"]
        self._dtype = self._torch.promote_types(self.network.dtype, self._torch.float32)

    def states(self, x: Array, steps: Sequence[int], noise: Noise, *, eta: float) -> Iterator[Any]:
        """Yield noisy images, and then what each step back makes of them.

        Parameters
        ----------
        x : ndarray, shape (N, C, H, W)
            Clean images, in [-1, 1].
        steps : sequence of int
            From the one to which noise is added down to the first that the network sees; as `respaced` says.
        noise : callable
            Blocks of normals.
        eta : float
            How much noise each step adds anew: 1 is ancestral sampling [1]_, 0 is deterministic [2]_.

        Yields
        ------
        torch.Tensor, shape (N, C, H, W)
            One tensor more than there are steps; the last one is the image that remains.

        References
        ----------
        .. [1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020. arXiv:2006.11239
        .. [2] Song, Meng, Ermon. Denoising Diffusion Implicit Models. ICLR 2021. arXiv:2010.02502
        """
        torch, alpha = self._torch, float(self.alphas[steps[0]])
        with torch.inference_mode(False), torch.no_grad():
            state = sqrt(alpha) * self._tensor(x) + sqrt(1 - alpha) * self._tensor(noise(0))
        yield state
        for step, until in pairwise((*steps, -1)):
            with torch.inference_mode(False), torch.no_grad():
                state, deviation = self._back(state, step, until, eta)
                if deviation:
                    state = state + deviation * self._tensor(noise(until + 1))
            yield state

    def pull_back(
        self, x: Array, steps: Sequence[int], noise: Noise, grad: Callable[[Array], Array], *, eta: float
    ) -> Array:
        """Vector-Jacobian product of the last of the `states` with respect to the images.

        Parameters
        ----------
        x, steps, noise, eta
            As for `states`.
        grad : callable
            `(image that remains) -> gradient`, both of shape `(N, C, H, W)`.

        Returns
        -------
        ndarray, shape (N, C, H, W)

        Notes
        -----
        Of the way back, the images between the steps are kept; what the network computes within a step is
        computed again when the gradient comes there, and held for this one step.
        """
        torch = self._torch
        states = list(self.states(x, steps, noise, eta=eta))
        given = self._tensor(grad(to_numpy(states.pop())))
        for step, until in reversed(list(pairwise((*steps, -1)))):
            with torch.inference_mode(False), torch.enable_grad():
                entry = states.pop().requires_grad_()
                # What noise adds is the same for all images near by.
                (given,) = torch.autograd.grad(self._back(entry, step, until, eta)[0], entry, given)
        return to_numpy(sqrt(float(self.alphas[steps[0]])) * given)

    def _back(self, x: Any, step: int, until: int, eta: float) -> tuple[Any, float]:
        """Where a step from one step to an earlier one leads, and the deviation of the noise that it adds."""
        a, b = float(self.alphas[step]), float(self.alphas[until]) if until >= 0 else 1.0
        deviation = eta * sqrt((1 - b) / (1 - a) * (1 - a / b))
        clean, noise = self._parts(x, step, a)
        return sqrt(b) * clean + sqrt(max(0.0, 1 - b - deviation**2)) * noise, deviation

    def _parts(self, x: Any, step: int, a: float) -> tuple[Any, Any]:
        """The image and the noise of which the network thinks that noisy images are made."""
        found = self._found(x, step)
        if self.prediction == "v_prediction":
            clean, noise = sqrt(a) * x - sqrt(1 - a) * found, sqrt(1 - a) * x + sqrt(a) * found
        elif self.prediction == "sample":
            clean, noise = found, (x - sqrt(a) * found) / sqrt(1 - a)
        elif a:
            clean, noise = (x - sqrt(1 - a) * found) / sqrt(a), found
        else:
            raise ArgumentError(
                f"`schedule` leaves nothing of an image at step {step}, from which a network that predicts "
                "noise cannot return; lower `t_star`."
            )
        if self.saturated:
            clean = clean.clamp(-1, 1)
            noise = (x - sqrt(a) * clean) / sqrt(1 - a)
        return clean, noise

    def _found(self, x: Any, step: int) -> Any:
        """What the network predicts of images at a step."""
        torch, shape = self._torch, tuple(x.shape)
        at = torch.full(shape[:1], step, dtype=torch.int64, device=self.network.device)
        with noted(f"Raised by `model` for noisy images of shape {shape} at step {step}."):
            returned = self.network(x.to(self.network.dtype), at)
        found: Any = getattr(returned, "sample", returned[0] if isinstance(returned, tuple) else returned)
        given = tuple(getattr(found, "shape", ()))
        if given not in (shape, (shape[0], 2 * shape[1], *shape[2:])):
            raise ArgumentError(
                f"`model` must return a tensor of the shape of its noisy images, {shape}, got "
                f"{given or type(found).__name__}."
            )
        return found[:, : shape[1]].to(self._dtype)

    def _tensor(self, x: Array) -> Any:
        return self._torch.from_numpy(np.array(x)).to(self.network.device, self._dtype)


def respaced(last: int, count: int) -> list[int]:
    """So many steps of those from `last` down to 0, evenly spaced, `last` the first of them."""
    return [-(-(last + 1) * k // count) - 1 for k in range(count, 0, -1)]


def schedule_of(schedule: Any, length: int = 1000) -> Array:
    """What is left of the variance of an image after each step.

    Parameters
    ----------
    schedule : {"linear", "cosine"}, array_like or object
        "linear": the variance that a step adds grows from ``0.1 / length`` to ``20 / length`` (Ho et al.
        2020, who have 1000 steps); "cosine": that of Nichol and Dhariwal 2021 (arXiv:2102.09672). Or the
        shares themselves, an array `(T,)` that falls within [0, 1), or an object that has them as
        ``alphas_cumprod``, such as a scheduler of diffusers.
    length : int, default 1000
        Number of steps of a schedule that is named.

    Returns
    -------
    ndarray of float64, shape (T,)

    Raises
    ------
    ValueError
        If it is something else.
    """
    if isinstance(schedule, str) and schedule in SCHEDULES:
        if schedule == "linear":
            added = np.linspace(0.1, 20, length) / length
        else:
            places = np.cos((np.arange(length + 1) / length + 0.008) / 1.008 * np.pi / 2) ** 2
            added = 1 - places[1:] / places[:-1]
        return np.cumprod(1 - np.minimum(added, 0.999))
    shares = getattr(schedule, "alphas_cumprod", schedule)
    try:
        alphas = np.asarray(to_numpy(shares), np.float64)
    except (TypeError, ValueError):
        alphas = np.empty(0)
    falls = alphas.ndim == 1 and alphas.size > 0 and bool(np.all(np.diff(alphas) < 0))
    if not falls or not (alphas[0] < 1 and alphas[-1] >= 0):
        raise ArgumentError(
            "`schedule` must be 'linear', 'cosine', a scheduler with `alphas_cumprod`, or an array (T,) of "
            f"such shares that fall within [0, 1), got {_described(shares)}."
        )
    return alphas


def _described(value: Any) -> str:
    shape: Shape | None = getattr(value, "shape", None)
    text = repr(value) if shape is None or len(shape) == 0 else f"shape {tuple(shape)}"
    return f"{text} of type {type(value).__name__}"
