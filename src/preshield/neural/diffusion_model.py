"""A diffusion model of images, and its training."""

import copy
import json
from pathlib import Path
from typing import Any, Self

import numpy as np

from .._core.checks import check_integer, check_option
from .._core.errors import ArgumentError
from .._core.optional import require
from .._core.typing import Array, Shape
from .._core.writing import write_atomically
from .diffusion import SCHEDULES, Diffusion, respaced, schedule_of
from .pixel_levels import to_images
from .training import check_training, shuffled, split, train

__all__ = ["DiffusionModel"]

BATCH = 256  # images that `sample` makes at once, and that are validated at once
MOST = 100_000  # steps of a schedule
VALIDATIONS = 4  # steps at which each of the validation images is looked at


class DiffusionModel:
    """A network that finds the noise in images, from which images of noise alone can be made [1]_.

    The network is a small U-Net: residual convolutions at three resolutions, each half of the one before,
    without attention. It is trained on the mean squared error of the noise, at all steps alike.

    Parameters
    ----------
    width : int, default 32
        Feature maps at full resolution; twice as many at the others.
    timesteps : int, default 1000
        Number of steps in which an image becomes noise.
    schedule : {"linear", "cosine"}, default "linear"
        How much noise there is after each of them: as in the paper, or more slowly at both ends [2]_.
    seed : int, default 0
        Seed of the initial weights, of the choice of the validation images and of all that is drawn in
        training.

    Attributes
    ----------
    input_shape : tuple of int or None
        (H, W, C) of the images; None before training.

    Raises
    ------
    TypeError, ValueError
        If a parameter breaks its rule.

    Notes
    -----
    Images are `(N, H, W, C)` of any size and number of channels, as `uint8` or as floats in [0, 1]; those
    that come back are `float32` in [0, 1]. It is trained by torch, on the CPU, and stays there;
    ``model.network.to("cuda")`` moves it.

    References
    ----------
    .. [1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models. NeurIPS 2020. arXiv:2006.11239
    .. [2] Nichol, Dhariwal. Improved Denoising Diffusion Probabilistic Models. ICML 2021. arXiv:2102.09672

    Examples
    --------
    >>> import pytest
    >>> torch = pytest.importorskip("torch")
    >>> import numpy as np
    >>> x = np.zeros((8, 4, 4, 1), dtype=np.uint8)
    >>> x[:, :, 2:] = 255  # each image: the left half black, the right half white
    >>> model = DiffusionModel(width=8, timesteps=20).fit(x, epochs=70, learning_rate=2e-2)
    >>> model.sample(1)[0, 0, :, 0].round()
    array([0., 0., 1., 1.], dtype=float32)
    """

    def __init__(
        self, width: int = 32, timesteps: int = 1000, schedule: str = "linear", *, seed: int = 0
    ) -> None:
        check_integer("width", width, 1)
        check_integer("timesteps", timesteps, 2, MOST)
        check_option("schedule", schedule, SCHEDULES)
        check_integer("seed", seed, 0)
        self.width = int(width)
        self.timesteps = int(timesteps)
        self.schedule = schedule
        self.seed = int(seed)
        self.input_shape: Shape | None = None
        self._network: Any = None

    def __repr__(self) -> str:
        """Constructor call."""
        return (
            f"DiffusionModel(width={self.width}, timesteps={self.timesteps}, schedule={self.schedule!r}, "
            f"seed={self.seed})"
        )

    @property
    def is_fitted(self) -> bool:
        """Whether it has been trained or loaded."""
        return self._network is not None

    @property
    def network(self) -> Any:
        """The torch module: `(images (N, C, H, W) in [-1, 1] and noise, steps (N,)) -> noise`."""
        if self._network is None:
            raise ArgumentError(
                "This DiffusionModel is not trained yet: call fit(x) first, or DiffusionModel.load(path)."
            )
        return self._network

    @property
    def alphas_cumprod(self) -> Array:
        """What is left of the variance of an image after each step, shape (timesteps,)."""
        return schedule_of(self.schedule, self.timesteps)

    def fit(
        self,
        x: Any,
        *,
        epochs: int = 200,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        validation: float = 0.1,
        patience: int = 50,
        verbose: bool = False,
    ) -> Self:
        """Train on images, from new weights.

        Parameters
        ----------
        x : array_like, shape (N, H, W, C)
            Images, `uint8` or floats in [0, 1].
        epochs : int, default 200
            Passes over the data; in each, the last incomplete batch is dropped.
        batch_size : int, default 64
            Images in a step. With fewer images all of them make one step.
        learning_rate : float, default 2e-3
            Initial learning rate of Adam; decays to zero along a cosine.
        validation : float, default 0.1
            Share of the images that are not trained on, by which the best weights are chosen. If this is less
            than one image, the training loss chooses.
        patience : int, default 50
            Epochs without a new best after which training stops.
        verbose : bool, default False
            Whether to show a progress bar, with the mean squared error of the noise; 1 if nothing is known.

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
            If torch is missing.
        """
        checked = check_training(
            x,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            validation=validation,
            patience=patience,
            verbose=verbose,
        )
        torch = require("torch", extra="torch")
        rng = np.random.default_rng(self.seed)
        images = np.moveaxis(2 * to_images(checked) - 1, -1, 1)
        learned, test = split(images, validation, rng)
        size = min(int(batch_size), len(learned))
        with torch.inference_mode(False), torch.enable_grad():  # whatever mode the caller is in
            network = self._new_network(checked.shape[-1])
            optimiser = torch.optim.Adam(network.parameters(), float(learning_rate))
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
                optimiser, int(epochs) * (len(learned) // size)
            )
            alphas = self.alphas_cumprod

            def noisy(images: Array, rng: np.random.Generator) -> tuple[Any, ...]:
                """Noisy images, their steps, and the noise."""
                steps = rng.integers(self.timesteps, size=len(images))
                noise = rng.standard_normal(images.shape, np.float32)
                left = alphas[steps, None, None, None]
                made = np.sqrt(left) * images + np.sqrt(1 - left) * noise
                return tuple(map(torch.from_numpy, (made.astype(np.float32), steps, noise)))

            def step(images: Array) -> float:
                made, steps, noise = noisy(images, rng)
                loss = torch.nn.functional.mse_loss(network(made, steps), noise)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                return float(loss.detach())

            looked_at = noisy(np.repeat(test, VALIDATIONS, axis=0), np.random.default_rng([self.seed, 1]))

            def epoch() -> float:
                loss = float(np.mean([step(learned[rows]) for rows in shuffled(len(learned), size, rng)]))
                if not len(test):
                    return loss
                with torch.no_grad():
                    errors = [
                        float(torch.nn.functional.mse_loss(network(made, steps), noise, reduction="sum"))
                        for made, steps, noise in zip(*(part.split(BATCH) for part in looked_at), strict=True)
                    ]
                return sum(errors) / int(looked_at[2].numel())

            state = train(
                epoch,
                lambda: copy.deepcopy(network.state_dict()),
                name="DiffusionModel",
                epochs=epochs,
                patience=patience,
                learning_rate=learning_rate,
                shown=lambda loss: {"error of the noise": f"{loss:.4f}"},
                verbose=verbose,
            )
            network.load_state_dict(state)
        self._network, self.input_shape = network.eval().requires_grad_(False), checked.shape[1:]
        return self

    def sample(self, n: int, *, steps: int | None = None, seed: int = 0) -> Array:
        """Make images of noise.

        Parameters
        ----------
        n : int
            How many.
        steps : int, optional
            Steps of the way back, evenly spaced; by default all.
        seed : int, default 0
            Seed of the noise.

        Returns
        -------
        ndarray of float32, shape (n, H, W, C)
            In [0, 1].
        """
        check_integer("n", n, 0)
        count = self.timesteps if steps is None else check_integer("steps", steps, 1, self.timesteps)
        check_integer("seed", seed, 0)
        diffusion = Diffusion(self.network, self.alphas_cumprod, saturated=True)
        rng = np.random.default_rng(int(seed))
        height, width, channels = self.input_shape or ()
        made = [np.empty((0, channels, height, width), np.float32)]
        for start in range(0, int(n), BATCH):
            shape = (min(BATCH, int(n) - start), channels, height, width)

            def noise(_: int, shape: Shape = shape) -> Array:
                return rng.standard_normal(shape, np.float32)

            # Of an image without contrast nothing is left but noise.
            grey, steps_back = np.zeros(shape, np.float32), respaced(self.timesteps - 1, count)
            for state in diffusion.states(grey, steps_back, noise, eta=1.0):
                last = state
            made.append(last.cpu().numpy())
        return np.clip((np.moveaxis(np.concatenate(made), 1, -1) + 1) / 2, 0, 1)

    def save(self, path: str | Path) -> None:
        """Write the model to a file.

        Parameters
        ----------
        path : str or Path
            A ``.safetensors`` file.

        Raises
        ------
        ValueError
            If the file is of another kind, or the model is not trained.
        ImportError
            If safetensors is missing.
        """
        _check_suffix(path)
        state = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        about = {
            name: getattr(self, name) for name in ("width", "timesteps", "schedule", "seed", "input_shape")
        }
        save = require("safetensors.torch", extra="torch").save
        write_atomically(Path(path), save(state, {"DiffusionModel": json.dumps(about)}))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model that `save` wrote.

        Parameters
        ----------
        path : str or Path
            A ``.safetensors`` file, which holds numbers and no code.

        Returns
        -------
        DiffusionModel
            Ready for use, on the CPU.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If the file is damaged or holds another model.
        ImportError
            If torch or safetensors is missing.
        """
        _check_suffix(path)
        torch = require("torch", extra="torch")
        safetensors = require("safetensors", extra="torch")
        Path(path).stat()
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["DiffusionModel"])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            shape = tuple(check_integer("input_shape", length, 1) for length in about.pop("input_shape"))
            *_, channels = shape
            loaded = cls(**about)
            with torch.device("meta"):  # the file says how large it is, and nothing is made of that alone
                network = loaded._new_network(channels)
            network.load_state_dict(state, assign=True)
            if not all(tensor.is_floating_point() for tensor in state.values()):
                raise ArgumentError("its weights are integers")
        except (AttributeError, KeyError, RecursionError, RuntimeError, TypeError, ValueError) as error:
            raise ArgumentError(f"cannot load {str(path)!r}: it does not hold a {cls.__name__}") from error
        except safetensors.SafetensorError as error:
            raise ArgumentError(f"cannot load {str(path)!r}: {error}") from error
        loaded._network, loaded.input_shape = network.eval().requires_grad_(False), shape
        return loaded

    def _new_network(self, channels: int) -> Any:
        """A network with new weights; torch's own generator stays where it is."""
        torch = require("torch", extra="torch")
        from .unet import UNet

        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(self.seed % 2**63)
            return UNet(channels, self.width).float()


def _check_suffix(path: str | Path) -> None:
    if Path(path).suffix != ".safetensors":
        raise ArgumentError(f"`path` must end in '.safetensors', got {str(path)!r}.")
