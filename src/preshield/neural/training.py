"""What the training of all models of images has in common."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from .._core.checks import check_bool, check_integer, check_number
from .._core.errors import ArgumentError
from .._core.progress import progress_bar
from .._core.typing import Array
from .pixel_levels import check_images

__all__ = ["check_training", "shuffled", "split", "train"]

State = TypeVar("State")


def check_training(
    x: Any,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    verbose: bool,
    validation: float = 0.0,
    patience: int = 1,
    layout: str = "NHWC",
) -> Array:
    """Refuse options that break a rule and a batch without an image; return the images as an array."""
    for name, value in (("epochs", epochs), ("batch_size", batch_size), ("patience", patience)):
        check_integer(name, value, 1)
    check_number("learning_rate", learning_rate, 0)
    check_number("validation", validation, 0, 0.9)
    check_bool(verbose=verbose)
    images = check_images(x, layout)
    if not images.size:
        raise ArgumentError(f"`x` must hold at least one image to train on, got shape {images.shape}.")
    return images


def split(images: Array, validation: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Images to train on, and a share of them, chosen at random, to validate with."""
    order = rng.permutation(len(images))
    held = int(validation * len(images))
    return images[order[held:]], images[order[:held]]


def shuffled(length: int, size: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield the indices of whole steps of `size` samples in a random order; the rest is left out."""
    order = rng.permutation(length)
    yield from order[: length // size * size].reshape(-1, size)


def train(
    epoch: Callable[[], float],
    state: Callable[[], State],
    *,
    name: str,
    epochs: int,
    patience: int | None,
    learning_rate: float,
    shown: Callable[[float], dict[str, str]],
    verbose: bool,
) -> State:
    """Run epochs until the loss no longer falls, and return the state after the best of them.

    Parameters
    ----------
    epoch : callable
        Runs one epoch and returns its loss.
    state : callable
        Returns a copy of what is trained.
    name : str
        Caption of the progress bar.
    epochs : int
        The most epochs.
    patience : int or None
        Epochs without a new best after which training stops; None if the loss does not tell which epoch is
        the best: all of them are run then, and the last one counts.
    learning_rate : float
        For the message.
    shown : callable
        What the progress bar shows for a loss.
    verbose : bool
        Whether to show a progress bar.

    Returns
    -------
    object
        What `state` returned.

    Raises
    ------
    FloatingPointError
        If a loss is not finite; the message names the epoch.
    """
    best, last = np.inf, 0
    with progress_bar(iterable=range(int(epochs)), desc=name, disable=not verbose) as progress:
        for number in progress:
            loss = epoch()
            if not np.isfinite(loss):
                raise FloatingPointError(
                    f"The loss is {loss} in epoch {number + 1}: training stopped, and the model is as it "
                    f"was; lower `learning_rate`, now {learning_rate!r}."
                )
            progress.set_postfix(shown(loss))
            if patience is None:
                continue
            if loss < best:
                best, kept, last = loss, state(), number
            elif number - last >= patience:
                break
    return state() if patience is None else kept
