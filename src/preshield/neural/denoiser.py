"""A network that removes Gaussian noise, and its training."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from .._core.checks import check_bool, check_integer, check_number, check_option
from .._core.draws import Draws
from .._core.errors import ArgumentError
from .._core.limits import check_arrays
from .._core.optional import require
from .._core.typing import Array
from .._core.writing import written
from .latent_model import CHANNELS_LAST, FLOAT32
from .layers import framework_of
from .outputs import numbers_of, scores_of
from .pixel_levels import to_images
from .pretrained import PretrainedModel
from .torch_module import TorchModule, evaluating
from .training import check_training, shuffled, train

__all__ = ["Denoiser"]

FRAMEWORKS = ("torch", "keras")
LOSSES = ("mse", "stability")
KERNEL = 3  # pixels
BATCH = 128  # images that are denoised at once
FORMAT = 1  # of the file
SUM = 1e-3  # by which probabilities may miss a sum of 1

Weights = list[Array]


class Denoiser:
    """A convolutional network that removes Gaussian noise from images, like DnCNN [1]_ but small.

    In front of a classifier that was trained without noise, and behind the noise of `RandomizedSmoothing`, it
    makes certificates possible that the classifier alone does not give [2]_.

    Parameters
    ----------
    sigma : float
        Standard deviation of the noise that it is trained on, for pixels in [0, 1].
    depth : int, default 5
        Convolutions of 3 x 3, at least 2, with ReLU between them. The last one estimates the noise, which is
        subtracted.
    width : int, default 32
        Channels between them.
    framework : {"torch", "keras"}, default "torch"
        What trains it and what `network` is for: a torch module for images (N, C, H, W), or a Keras model, on
        any backend, for images (N, H, W, C).
    seed : int, default 0
        Seed of the initial weights and of all that is drawn in training.

    Attributes
    ----------
    weights : list of ndarray of float32, or None
        Kernel (3, 3, in, out) and bias (out,) of each convolution, in both frameworks; None before training.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule.

    See Also
    --------
    RandomizedSmoothing : Takes it as `denoiser`.

    Notes
    -----
    DnCNN has 17 convolutions of 64 channels and batch normalisation. This one has neither, so that it trains
    on small images in minutes on a processor. It takes images of any size; borders are padded with zeros.

    References
    ----------
    .. [1] Zhang et al. Beyond a Gaussian Denoiser: Residual Learning of Deep CNN for Image Denoising. IEEE
       Transactions on Image Processing 2017. arXiv:1608.03981
    .. [2] Salman et al. Denoised Smoothing: A Provable Defense for Pretrained Classifiers. NeurIPS 2020.
       arXiv:2003.01908

    Examples
    --------
    >>> import pytest
    >>> torch = pytest.importorskip("torch")
    >>> import numpy as np
    >>> x = np.full((16, 1, 8, 8), 0.5, np.float32)
    >>> x[::2] = 0.75
    >>> denoiser = Denoiser(0.2, depth=3, width=8).fit(x, epochs=60, learning_rate=1e-2)
    >>> noisy = x + 0.2 * np.random.default_rng(0).standard_normal(x.shape, np.float32)
    >>> bool(np.std(denoiser.denoise(noisy) - x) < 0.5 * np.std(noisy - x))
    True
    """

    def __init__(
        self, sigma: float, *, depth: int = 5, width: int = 32, framework: str = "torch", seed: int = 0
    ) -> None:
        check_number("sigma", sigma, 0)
        if not sigma:
            raise ArgumentError("`sigma` must be above 0: without noise there is nothing to learn, got 0.")
        check_integer("depth", depth, 2)
        check_integer("width", width, 1)
        check_option("framework", framework, FRAMEWORKS)
        check_integer("seed", seed, 0)
        self.sigma = float(sigma)
        self.depth = int(depth)
        self.width = int(width)
        self.framework = framework
        self.seed = int(seed)
        self.weights: Weights | None = None
        self._network: Any = None

    def __repr__(self) -> str:
        """Constructor call."""
        return (
            f"Denoiser({self.sigma}, depth={self.depth}, width={self.width}, "
            f"framework={self.framework!r}, seed={self.seed})"
        )

    @property
    def is_fitted(self) -> bool:
        """Whether it has been trained or loaded."""
        return self.weights is not None

    @property
    def network(self) -> Any:
        """The network: a torch module in evaluation mode, or a Keras model."""
        if self._network is None:
            self._network = self._built(self._fitted())
        return self._network

    def denoise(self, x: Any) -> Array:
        """Estimate what images were before noise was added.

        Parameters
        ----------
        x : array_like, shape (N, C, H, W) for torch, (N, H, W, C) for Keras
            Noisy images; values beyond [0, 1] are welcome.

        Returns
        -------
        ndarray of float32, shape as `x`
        """
        images, network = np.asarray(x, np.float32), self.network
        run = TorchModule(network).outputs if self.framework == "torch" else network.predict_on_batch
        found = [numbers_of(run(images[i : i + BATCH])) for i in range(0, len(images), BATCH)]
        return np.concatenate([np.empty((0, *images.shape[1:]), np.float32), *found])

    def fit(
        self,
        x: Any,
        *,
        loss: Literal["mse", "stability"] = "mse",
        classifier: Any = None,
        epochs: int = 20,
        batch_size: int = 32,
        learning_rate: float = 1e-3,
        warm_start: bool = False,
        verbose: bool = False,
    ) -> Self:
        """Train on clean images, to which new noise is added in every epoch.

        Parameters
        ----------
        x : array_like, shape (N, C, H, W) for torch, (N, H, W, C) for Keras
            Clean images, `uint8` or floats in [0, 1].
        loss : {"mse", "stability"}
            The mean squared error of the pixels; or the cross-entropy of the classifier behind the denoiser,
            with the labels that it gives the clean images. The paper trains with the first, or continues with
            the second: ``fit(x).fit(x, loss="stability", classifier=model, warm_start=True)``.
        classifier : torch.nn.Module, PretrainedModel or keras.Model, optional
            For "stability": a model of the same framework, which stays as it is.
        epochs : int, default 20
            Passes over the data; in each, the images that fill no step are left out.
        batch_size : int, default 32
            Images in a step. With fewer images all of them make one step.
        learning_rate : float, default 1e-3
            Of Adam in the first step; it falls to zero along a cosine.
        warm_start : bool, default False
            Whether to continue with the weights that it has.
        verbose : bool, default False
            Whether to show a progress bar, with the loss.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            If the images or a parameter break a rule; before any work starts.
        FloatingPointError
            If the loss is no longer finite; the message names the epoch, and the model stays as it was.
        ImportError
            If the framework is missing.
        """
        check_option("loss", loss, LOSSES)
        check_bool(warm_start=warm_start)
        images = check_training(
            x,
            layout="NCHW" if self.framework == "torch" else "NHWC",
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            verbose=verbose,
        )
        channels = images.shape[1 if self.framework == "torch" else -1]
        classifier = self._classifier(classifier, loss)
        images, size = to_images(images), min(int(batch_size), len(images))
        network = self._built(self._fitted() if warm_start else self._initial(channels))
        steps = int(epochs) * (len(images) // size)
        trainer = _torch_trainer if self.framework == "torch" else _keras_trainer
        step, weights_of, end = trainer(network, classifier, images, float(learning_rate), steps)
        rng, number = np.random.default_rng(self.seed), 0

        def epoch() -> float:
            nonlocal number
            key = np.random.SeedSequence([self.seed, number]).generate_state(2).astype(np.uint32, copy=False)
            losses, number = [], number + 1
            for rows in shuffled(len(images), size, rng):
                noise = Draws(key, rows.astype(np.uint32)).standard_normal(
                    (size, *images.shape[1:]), np.float32
                )
                losses.append(step(images[rows] + np.float32(self.sigma) * noise, rows))
            return float(np.mean(losses))

        try:
            self.weights = train(
                epoch,
                weights_of,
                name="Denoiser",
                epochs=epochs,
                patience=None,
                learning_rate=learning_rate,
                shown=lambda loss: {"loss": f"{loss:.4g}"},
                verbose=verbose,
            )
        finally:
            end()
        self._network = None
        return self

    def save(self, path: str | Path) -> None:
        """Write the weights to a file.

        Parameters
        ----------
        path : str or Path
            An ``.npz`` file: arrays, which both frameworks can take.

        Raises
        ------
        ValueError
            If the file is of another kind, or the model is not trained.
        """
        if Path(path).suffix != ".npz":
            raise ArgumentError(f"`path` must end in '.npz', got {str(path)!r}.")
        arrays: dict[str, Any] = {f"weights_{i:02d}": array for i, array in enumerate(self._fitted())}
        with written(Path(path)) as file:
            np.savez(file, format=FORMAT, sigma=self.sigma, **arrays)

    @classmethod
    def load(cls, path: str | Path, *, framework: str = "torch") -> Self:
        """Read a model that `save` wrote.

        Parameters
        ----------
        path : str or Path
            An ``.npz`` file. It holds arrays; no code from it runs.
        framework : {"torch", "keras"}, default "torch"
            What it is for, whichever trained it.

        Returns
        -------
        Denoiser

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged or holds something else.
        """
        path = Path(path)
        path.stat()
        try:
            check_arrays(path)
            with np.load(path, allow_pickle=False) as file:
                arrays = dict(file)
            version, sigma = int(arrays.pop("format")), float(arrays.pop("sigma"))
            weights = [arrays[name] for name in sorted(arrays)]
            loaded = cls(sigma, depth=len(weights) // 2, width=weights[0].shape[3], framework=framework)
            shapes = [array.shape for array in loaded._initial(weights[0].shape[2])]
            fit = version == FORMAT and [array.shape for array in weights] == shapes
            if not fit or not all(a.dtype == np.float32 and np.isfinite(a).all() for a in weights):
                raise ValueError("its arrays are not those of a Denoiser")
        except Exception as error:
            raise ArgumentError(f"cannot load {str(path)!r}: {error}") from error
        loaded.weights = weights
        return loaded

    def _fitted(self) -> Weights:
        if self.weights is None:
            raise ArgumentError(
                "This Denoiser is not trained yet: call fit(x) first, or Denoiser.load(path)."
            )
        return self.weights

    def _initial(self, channels: int) -> Weights:
        """Weights after He et al. 2015; the last ones are zero, so that training starts at the identity."""
        rng = np.random.default_rng(self.seed)
        sizes = [channels, *[self.width] * (self.depth - 1), channels]
        weights: Weights = []
        for place, (of, to) in enumerate(pairwise(sizes)):
            kernel = rng.standard_normal((KERNEL, KERNEL, of, to), np.float32)
            kernel *= np.float32(np.sqrt(2 / (KERNEL * KERNEL * of))) if place < self.depth - 1 else 0
            weights += [kernel, np.zeros(to, np.float32)]
        return weights

    def _built(self, weights: Weights) -> Any:
        """A network with these weights."""
        if weights[0].shape[3] != self.width or len(weights) != 2 * self.depth:
            raise ArgumentError("`weights` must be those of `depth` convolutions of `width` channels.")
        return _torch_network(weights) if self.framework == "torch" else _keras_network(weights)

    def _classifier(self, classifier: Any, loss: str) -> Any:
        """The classifier of the loss, if it has one."""
        if loss == "mse":
            if classifier is not None:
                raise ArgumentError(
                    '`classifier` must be left out with loss="mse", got one; pass loss="stability" to use it.'
                )
            return None
        if isinstance(classifier, PretrainedModel):
            classifier = classifier.model
        if classifier is None or framework_of(classifier, "classifier") != self.framework:
            kind = "a torch module" if self.framework == "torch" else "a Keras model"
            raise ArgumentError(
                f'`classifier` must be {kind} with loss="stability" and framework={self.framework!r}, got '
                f"{classifier!r}."
            )
        return classifier


Trainer = tuple[Callable[[Array, Array], float], Callable[[], Weights], Callable[[], None]]


def _are_probabilities(scores: Array) -> bool:
    return bool((scores >= 0).all() and np.abs(scores.sum(axis=1) - 1).max() < SUM)


# torch


def _torch_network(weights: Weights) -> Any:
    torch = require("torch", extra="torch")
    layers: list[Any] = []
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        conv = torch.nn.Conv2d(*kernel.shape[2:], KERNEL, padding=KERNEL // 2)
        with torch.no_grad():
            conv.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))))
            conv.bias.copy_(torch.from_numpy(bias))
        layers += [conv, torch.nn.ReLU()]
    from .residual import Residual

    return Residual(*layers[:-1]).eval()


def _torch_trainer(network: Any, classifier: Any, images: Array, learning_rate: float, steps: int) -> Trainer:
    torch = require("torch", extra="torch")
    parameters = list(network.parameters())
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    if classifier is not None:
        judge = TorchModule(classifier)
        scores = [
            numbers_of(judge.returned(images[i : i + BATCH]), "classifier")
            for i in range(0, len(images), BATCH)
        ]
        labels, shares = (
            torch.from_numpy(np.concatenate(scores).argmax(axis=1)),
            _are_probabilities(scores[0]),
        )
        network.to(judge.device)

    def loss_of(noisy: Any, rows: Array) -> Any:
        if classifier is None:
            return ((network(noisy) - torch.from_numpy(images[rows])) ** 2).mean()
        with evaluating(classifier):
            found = scores_of(classifier(network(noisy.to(judge.device)).to(judge.dtype)), "classifier")
        found = found.float()
        logs = found.clamp_min(1e-30).log() if shares else found.log_softmax(dim=1)
        return -logs[torch.arange(len(rows)), labels[rows].to(judge.device)].mean()

    def step(noisy: Array, rows: Array) -> float:
        with torch.inference_mode(False), torch.enable_grad():
            loss = loss_of(torch.from_numpy(noisy), rows)
            gradients = torch.autograd.grad(loss, parameters)  # of nothing else: the classifier stays
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()
        schedule.step()
        return float(loss.detach())

    def weights_of() -> Weights:
        arrays = [parameter.detach().cpu().numpy() for parameter in parameters]
        return [np.array(a.transpose(2, 3, 1, 0) if a.ndim > 1 else a, order="C") for a in arrays]

    return step, weights_of, lambda: None


# Keras


def _keras_network(weights: Weights) -> Any:
    keras = require("keras", extra="tensorflow")
    entry = keras.Input((None, None, weights[0].shape[2]), **FLOAT32)
    x, last = entry, len(weights) // 2 - 1
    for place, kernel in enumerate(weights[::2]):
        activation = None if place == last else "relu"
        x = keras.layers.Conv2D(
            kernel.shape[3], KERNEL, padding="same", activation=activation, **CHANNELS_LAST
        )(x)
    network = keras.Model(entry, keras.layers.Subtract(**FLOAT32)([entry, x]), name="denoiser")
    network.set_weights(weights)
    return network


def _keras_trainer(network: Any, classifier: Any, images: Array, learning_rate: float, steps: int) -> Trainer:
    keras = require("keras", extra="tensorflow")
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, max(1, steps))
    optimiser = keras.optimizers.Adam(schedule)
    targets, model, loss, flags = images, network, "mean_squared_error", []
    if classifier is not None:
        scores = [classifier.predict_on_batch(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        scores = [numbers_of(found, "classifier") for found in scores]
        targets = np.concatenate(scores).argmax(axis=1)
        flags = [(layer, layer.trainable) for layer in classifier._flatten_layers()]
        entry = keras.Input(images.shape[1:], **FLOAT32)
        model = keras.Model(entry, scores_of(classifier(network(entry), training=False), "classifier"))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not _are_probabilities(scores[0]))
        classifier.trainable = False
    model.compile(optimizer=optimiser, loss=loss)
    optimiser.build(model.trainable_variables)  # or the first step would be traced twice

    def step(noisy: Array, rows: Array) -> float:
        model.reset_metrics()
        return float(np.ravel(model.train_on_batch(noisy, targets[rows]))[0])

    def end() -> None:
        for layer, trainable in flags:
            layer.trainable = trainable

    return step, lambda: [np.array(array) for array in network.get_weights()], end
