"""InverseGAN and DefenseGAN: the nearest image that a generator can make."""

import copy
import warnings
from contextlib import suppress
from typing import Any

import numpy as np

from .._core.checks import (
    check_bool,
    check_clip_values,
    check_integer,
    check_layout,
    check_option,
    check_rng,
    check_values,
)
from .._core.draws import Draws
from .._core.errors import ArgumentError
from .._core.tensors import like, to_numpy
from .._core.typing import Array, ClipValues, Rng
from .._core.unit_range import from_unit_range, range_of, to_unit_range
from ..neural.latent_maps import Encoder, Generator
from ..neural.latent_model import LatentModel
from ..neural.latent_search import nearest_latents
from ..preprocessor import Preprocessor

__all__ = ["DefenseGAN", "InverseGAN"]

METHODS = {"lbfgs": "L-BFGS-B", "adam": "Adam"}
WORDS = 1 << 31  # of random numbers for each image, more than it needs
TOLERANCE = 1e-6  # of the gradient of the error, where the range of the images is 1


class _Projection(Preprocessor):
    """What both do: put the nearest image that a generator can make in the place of each image."""

    stochastic = True
    optimises_at_test_time = True
    output_dtype = "float32"
    paper = "arXiv:1805.06605"
    known_attacks = (
        "Athalye, Carlini, Wagner 2018 (arXiv:1802.00420): BPDA, MNIST accuracy 55% at L2 0.005",
        "Ilyas, Jalal, Asteri, Daskalakis, Dimakis 2017 (arXiv:1712.09196): images that the generator makes",
    )

    gan_: Any = None

    def __init__(
        self,
        sess: Any,
        gan: Any,
        apply_fit: bool,
        apply_predict: bool,
        restarts: int,
        max_iter: int,
        optimiser: str,
        rng: Rng,
        batch_size: int,
        verbose: bool,
        clip_values: ClipValues | None,
        channels_first: bool,
        layout: str | None,
    ) -> None:
        if gan is not None and not isinstance(gan, LatentModel):
            Generator(gan)
        check_integer("restarts", restarts, 1)
        check_integer("max_iter", max_iter, 1)
        check_option("optimiser", optimiser, tuple(METHODS))
        check_rng(rng)
        check_integer("batch_size", batch_size, 1)
        check_clip_values(clip_values, optional=True)
        check_bool(apply_fit=apply_fit, apply_predict=apply_predict, verbose=verbose)
        check_bool(channels_first=channels_first)
        check_layout(layout, channels_first, self.domains)
        if sess is not None:
            warnings.warn("`sess` is ignored: TensorFlow 2 has no sessions; pass None.", stacklevel=3)
        self.sess = sess
        self.gan = gan
        self.apply_fit = apply_fit
        self.apply_predict = apply_predict
        self.restarts = restarts
        self.max_iter = max_iter
        self.optimiser = optimiser
        self.rng = rng
        self.batch_size = batch_size
        self.verbose = verbose
        self.clip_values = clip_values
        self.channels_first = channels_first
        self.layout = layout

    def loss(self, z_encoding: Any, image_adv: Any) -> float:
        """Sum over the samples of the mean squared error between the images of latents and given ones.

        Parameters
        ----------
        z_encoding : array_like or tensor, shape (N, ...)
            Latents.
        image_adv : array_like or tensor
            Images, as the defence takes them.

        Returns
        -------
        float
            In squared units of the images that the model makes; for a model of preshield's, in [0, 1].

        Raises
        ------
        ValueError
            If the shapes are not those of the model.
        """
        return float(self._errors(z_encoding, image_adv)[0].sum())

    def _estimate_gradient(self, x: Any, grad: Any) -> Any:
        shape, other = tuple(np.shape(x)), tuple(np.shape(grad))
        if len(other) != 4 or shape == other:
            return super()._estimate_gradient(x, grad)
        if len(shape) == 4 and shape[1:] != self._generator(self._checked(to_numpy(grad))).latent_shape:
            return super()._estimate_gradient(x, grad)
        return like(x, self._errors(x, grad)[1])

    def _errors(self, z_encoding: Any, image_adv: Any) -> tuple[Array, Array]:
        """The error of each latent, and its gradient."""
        latents, x = to_numpy(z_encoding), self._checked(to_numpy(image_adv))
        generator = self._generator(x)
        targets = self._as_made(x, generator)
        check_values("z_encoding", latents)
        if latents.shape != (len(x), *(generator.latent_shape or ())):
            raise ArgumentError(
                f"`z_encoding` must hold one latent of shape {generator.latent_shape} for each of the "
                f"{len(x)} images, got shape {latents.shape}."
            )
        return generator.errors(targets)(latents, np.arange(len(x)))

    def _draw(self, x: Array, rng: Draws) -> Draws:
        return rng.reserve(WORDS)

    def _transform(self, x: Array, draw: Draws) -> Array:
        generator = self._generator(x)
        targets, encoder = self._as_made(x, generator), self._encoder()
        encoded, shape = int(encoder is not None), generator.latent_shape or ()
        restarts, batch_size = int(self.restarts), int(self.batch_size)

        def starts(rows: slice) -> Array:
            latents = np.empty((rows.stop - rows.start, restarts, *shape))
            if encoder is not None:
                latents[:, 0] = self._encoded(encoder, targets[rows], generator)
            drawn = Draws(draw.key, draw.index[rows], draw.first).standard_normal(latents[:, encoded:].shape)
            latents[:, encoded:] = drawn
            return latents

        latents = nearest_latents(
            generator,
            targets,
            starts,
            method=METHODS[self.optimiser],
            max_iter=int(self.max_iter),
            tolerance=TOLERANCE * self._squared_range(),
            batch_size=batch_size,
            progress=type(self).__name__ if self.verbose else None,
        )
        images = np.empty(targets.shape, np.float32)
        for start in range(0, len(x), batch_size):
            rows = slice(start, start + batch_size)
            images[rows] = generator.images(latents[rows])
        return self._as_given(images, x)

    def _fit(self, x: Array, y: Array | None, **options: Any) -> None:
        model = self.gan
        if self._learns:
            if self.clip_values is None and (x.min(initial=0) < 0 or x.max(initial=1) > 1):
                raise ArgumentError(
                    f"`x` must lie in [0, 1] where `clip_values` is None, got values from {x.min()} to "
                    f"{x.max()}; pass their range as `clip_values`."
                )
            model = _default_model() if model is None else copy.deepcopy(model)
            images = to_unit_range(x, self._limits, axis=self._channel_axis(x.ndim))
            model.fit(images, **{"verbose": self.verbose, **options})
        elif options:
            raise ArgumentError(
                f"fit() got an unexpected keyword argument {next(iter(options))!r}: `gan` is trained already."
            )
        else:
            self._as_made(x, self._generator(x))
        self.gan_ = model

    @property
    def _learns(self) -> bool:
        return self.gan is None or (isinstance(self.gan, LatentModel) and not self.gan.is_fitted)

    def _model(self) -> Any:
        model = self.gan_ if self._learns else self.gan
        if model is None:
            raise ArgumentError(
                f"This {type(self).__name__} has no trained model yet: call fit(x) with clean training "
                "images first, or pass a trained `gan`."
            )
        return model

    def _encoder(self) -> Encoder | None:
        """What gives the first of the starts, if there is anything."""
        raise NotImplementedError

    def _generator(self, x: Array) -> Generator:
        """The model, with the shape of its latents; if it does not tell, the encoder does."""
        model = self._model()
        generator = Generator(model.generator if isinstance(model, LatentModel) else model)
        if generator.latent_shape is None and (encoder := self._encoder()) is not None:
            for images in self._layouts(np.zeros((1, *x.shape[1:]))):
                with suppress(Exception):  # of which kind, is up to the model
                    generator.latent_shape = encoder.latents(np.ascontiguousarray(images)).shape[1:]
                    break
        return generator

    def _encoded(self, encoder: Encoder, images: Array, generator: Generator) -> Array:
        """Latents of images, in the shape that the generator takes."""
        latents, shape = encoder.latents(images), generator.latent_shape or ()
        if latents[0].size != np.prod(shape):
            raise ArgumentError(
                f"`inverse_gan` must give latents as `gan` takes them, of shape {shape}, got "
                f"{latents.shape[1:]}."
            )
        return latents.reshape(-1, *shape)

    def _layouts(self, x: Array) -> tuple[Array, ...]:
        """`x` as it is, and in the other layout: the model makes images in one of them."""
        axis = self._channel_axis(x.ndim)
        return x, np.moveaxis(x, axis, 3 if axis == 1 else 1)

    def _as_made(self, x: Array, generator: Generator) -> Array:
        """`x` in the range and the layout in which the model makes images."""
        shape = generator.image_shape()
        if isinstance(self._model(), LatentModel):
            layouts: tuple[Array, ...] = (to_unit_range(x, self._limits, axis=self._channel_axis(x.ndim)),)
        else:
            layouts = self._layouts(x)
        for images in layouts:
            if images.shape[1:] == shape:
                return np.ascontiguousarray(images, np.float32)
        raise ArgumentError(
            f"`gan` makes images of shape {shape}, which are not those of `x`, of shape {x.shape[1:]} with "
            f"the channels {'first' if self._channel_axis(x.ndim) == 1 else 'last'}."
        )

    def _as_given(self, images: Array, x: Array) -> Array:
        """Images that the model made, in the range and the layout of `x`."""
        if isinstance(self._model(), LatentModel):
            return from_unit_range(images, x, self._limits, axis=self._channel_axis(x.ndim))
        axis = self._channel_axis(x.ndim)
        if images.shape != x.shape:
            images = np.moveaxis(images, 3 if axis == 1 else 1, axis)
        if self.clip_values is None:
            return images
        low, span = range_of(x, self.clip_values, axis=axis)
        return np.clip(images, low, low + span)

    @property
    def _limits(self) -> ClipValues:
        """The range in which a model of preshield's makes images."""
        return (0.0, 1.0) if self.clip_values is None else self.clip_values

    def _squared_range(self) -> float:
        if self.clip_values is None or isinstance(self._model(), LatentModel):
            return 1.0
        low, high = (np.asarray(value, float) for value in self.clip_values)
        return float(np.mean((high - low) ** 2))


class InverseGAN(_Projection):
    """Replace each image by the nearest one that a generator can make, searched from an encoder's guess [1]_.

    The search minimises, for each image, the mean squared error of ``G(z)`` over the latents `z`, and the
    result is ``G(z)`` at the best one.

    Parameters
    ----------
    sess : None
        For scripts written for TensorFlow 1; anything else is ignored, with a warning.
    gan : VariationalAutoencoder, WassersteinGAN, keras.Model, torch.nn.Module or generator of ART's, optional
        Maps latents to images, as described under Notes. A model of preshield's that is not trained yet says
        what `fit` trains; None is a `VariationalAutoencoder`.
    inverse_gan : keras.Model, torch.nn.Module, encoder of ART's or callable, optional
        Maps images, as `gan` makes them, to latents, where the first search of each image starts. None is
        the encoder of a model of preshield's; with any other `gan` all starts are random.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default False
        Whether a classifier applies it when it predicts. As both are False by default, as in ART, a
        classifier would not apply it at all: it warns when one first asks.
    restarts : int, default 1
        Searches for each image, of which the best counts. Random starts have the standard normal
        distribution.
    max_iter : int, default 200
        Most steps of each search.
    optimiser : {"lbfgs", "adam"}, default "lbfgs"
        Limited-memory BFGS, with a line search for each search of each image; or Adam, with steps of 0.3 that
        fall to zero along a cosine.
    rng : None, int or numpy.random.Generator, optional
        Source of the random starts. None takes them from NumPy's global state.
    batch_size : int, default 128
        Images whose searches run together.
    verbose : bool, default False
        Whether to show progress bars.
    clip_values : tuple, optional
        `(minimum, maximum)` of the data: numbers, or arrays with one entry for each channel. A model of
        preshield's makes images in this range; those of another model are saturated to it. None is (0, 1) for
        a model of preshield's.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)`.
    layout : {"NHWC", "NCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule, the model is not trained, its images are of another size than those of
        `x`, or the latents of `gan` and `inverse_gan` differ in size.

    Notes
    -----
    Images `(N, H, W, C)`; `float32`. The gradient is the identity. Called with latents and images instead,
    ``estimate_gradient(z, x)`` is that of `loss` with respect to the latents, as in ART. What a model of
    preshield's is to reconstruct is first saturated to `clip_values`.

    A `gan` of yours makes images in the range of the data, and in their layout or in the other one: a Keras
    generator works before a torch classifier. Its latents may have any shape: that of the attribute
    `encoding_length`, if it has one; else that of the input of a Keras model, or of the first linear or
    convolutional layer of a torch module.

    ``fit(x)`` trains the model, unless there is a trained one; keywords go to the `fit` of the model. The
    result is in ``gan_``.

    References
    ----------
    .. [1] Samangouei, Kabkab, Chellappa. Defense-GAN: Protecting Classifiers Against Adversarial Attacks
       Using Generative Models. ICLR 2018. arXiv:1805.06605

    Examples
    --------
    >>> import pytest
    >>> torch = pytest.importorskip("torch")
    >>> import numpy as np
    >>> from preshield import InverseGAN
    >>> generator = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Unflatten(1, (2, 2, 1)))
    >>> for p, values in zip(generator.parameters(), ([[0.0], [0.0], [1.0], [1.0]], [0.0] * 4)):
    ...     p.data = torch.tensor(values)  # images whose upper row is 0, and whose lower row is z
    >>> x = np.array([0.1, -0.1, 0.4, 0.6]).reshape(1, 2, 2, 1)
    >>> InverseGAN(gan=generator).transform(x).round(3).ravel()
    array([0. , 0. , 0.5, 0.5], dtype=float32)
    """

    def __init__(
        self,
        sess: Any = None,
        gan: Any = None,
        inverse_gan: Any = None,
        apply_fit: bool = False,
        apply_predict: bool = False,
        *,
        restarts: int = 1,
        max_iter: int = 200,
        optimiser: str = "lbfgs",
        rng: Rng = None,
        batch_size: int = 128,
        verbose: bool = False,
        clip_values: ClipValues | None = None,
        channels_first: bool = False,
        layout: str | None = None,
    ) -> None:
        known = inverse_gan is None or isinstance(inverse_gan, LatentModel)
        maps = callable(inverse_gan) or hasattr(inverse_gan, "predict")
        if not known and (isinstance(inverse_gan, type) or not maps):
            raise ArgumentError(
                "`inverse_gan` must be None, a Keras model, a torch module, an encoder of ART's or a "
                f"callable, got {inverse_gan!r} of type {type(inverse_gan).__name__}."
            )
        super().__init__(
            sess,
            gan,
            apply_fit,
            apply_predict,
            restarts,
            max_iter,
            optimiser,
            rng,
            batch_size,
            verbose,
            clip_values,
            channels_first,
            layout,
        )
        self.inverse_gan = inverse_gan

    @property
    def apply_predict(self) -> bool:
        """Whether a classifier applies it when it predicts; tells the first that would never apply it."""
        kept = vars(self)
        if not (kept["apply_predict"] or self.apply_fit or kept.get("_has_warned")):
            self._has_warned = True
            warnings.warn(
                "This InverseGAN does nothing in a classifier, because `apply_fit` and "
                "`apply_predict` are False, as in ART; pass apply_predict=True, or use DefenseGAN.",
                stacklevel=2,
            )
        return bool(kept["apply_predict"])

    @apply_predict.setter
    def apply_predict(self, value: bool) -> None:
        vars(self)["apply_predict"] = value

    def _encoder(self) -> Encoder | None:
        model = self.inverse_gan
        if model is None:
            model = self._model()
            if not isinstance(model, LatentModel):
                return None
        return Encoder(model.encoder if isinstance(model, LatentModel) else model)


class DefenseGAN(_Projection):
    """Replace each image by the nearest one that a generator can make, searched from random starts [1]_.

    The search minimises, for each image, the mean squared error of ``G(z)`` over the latents `z`, and the
    result is ``G(z)`` at the best one.

    Parameters
    ----------
    sess : None
        For scripts written for TensorFlow 1; anything else is ignored, with a warning.
    gan : VariationalAutoencoder, WassersteinGAN, keras.Model, torch.nn.Module or generator of ART's, optional
        Maps latents to images, as for `InverseGAN`. A model of preshield's that is not trained yet says what
        `fit` trains; None is a `VariationalAutoencoder`.
    apply_fit : bool, default False
        Whether a classifier applies it when it is trained.
    apply_predict : bool, default True
        Whether a classifier applies it when it predicts.
    restarts : int, default 10
        Searches for each image, of which the best counts. Their starts have the standard normal distribution.
    max_iter : int, default 200
        Most steps of each search.
    optimiser : {"lbfgs", "adam"}, default "lbfgs"
        Limited-memory BFGS, with a line search for each search of each image; or Adam, with steps of 0.3 that
        fall to zero along a cosine.
    rng : None, int or numpy.random.Generator, optional
        Source of the random starts. None takes them from NumPy's global state.
    batch_size : int, default 128
        Images whose searches run together.
    verbose : bool, default False
        Whether to show progress bars.
    clip_values : tuple, optional
        `(minimum, maximum)` of the data: numbers, or arrays with one entry for each channel. A model of
        preshield's makes images in this range; those of another model are saturated to it. None is (0, 1) for
        a model of preshield's.
    channels_first : bool, default False
        Whether images are `(N, C, H, W)`.
    layout : {"NHWC", "NCHW"}, optional
        Layout of the batch, in place of `channels_first`, and taken at its word.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule, the model is not trained, or its images are of another size than those
        of `x`.

    Notes
    -----
    Images, latents, gradients and `fit` are as for `InverseGAN`.

    References
    ----------
    .. [1] Samangouei, Kabkab, Chellappa. Defense-GAN: Protecting Classifiers Against Adversarial Attacks
       Using Generative Models. ICLR 2018. arXiv:1805.06605

    Examples
    --------
    >>> import pytest
    >>> torch = pytest.importorskip("torch")
    >>> import numpy as np
    >>> from preshield import DefenseGAN
    >>> generator = torch.nn.Sequential(torch.nn.Linear(1, 4), torch.nn.Unflatten(1, (2, 2, 1)))
    >>> for p, values in zip(generator.parameters(), ([[0.0], [0.0], [1.0], [1.0]], [0.0] * 4)):
    ...     p.data = torch.tensor(values)  # images whose upper row is 0, and whose lower row is z
    >>> x = np.array([0.1, -0.1, 0.4, 0.6]).reshape(1, 2, 2, 1)
    >>> DefenseGAN(gan=generator, restarts=2).transform(x).round(3).ravel()
    array([0. , 0. , 0.5, 0.5], dtype=float32)
    """

    def __init__(
        self,
        sess: Any = None,
        gan: Any = None,
        *,
        apply_fit: bool = False,
        apply_predict: bool = True,
        restarts: int = 10,
        max_iter: int = 200,
        optimiser: str = "lbfgs",
        rng: Rng = None,
        batch_size: int = 128,
        verbose: bool = False,
        clip_values: ClipValues | None = None,
        channels_first: bool = False,
        layout: str | None = None,
    ) -> None:
        super().__init__(
            sess,
            gan,
            apply_fit,
            apply_predict,
            restarts,
            max_iter,
            optimiser,
            rng,
            batch_size,
            verbose,
            clip_values,
            channels_first,
            layout,
        )

    def _encoder(self) -> None:
        return None


def _default_model() -> Any:
    from ..neural.vae import VariationalAutoencoder

    return VariationalAutoencoder()
