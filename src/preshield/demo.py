"""The demonstration: photographs, a small network, its defences, and attacks on them."""

import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from . import (
    Chain,
    FeatureSqueezing,
    GaussianAugmentation,
    JpegCompression,
    SpatialSmoothing,
    ThermometerEncoding,
    TotalVarMin,
)
from ._core.typing import Array
from .evaluation.defended_model import DefendedModel
from .evaluation.photographs import CropTask, bundled_photographs, cut_crops
from .evaluation.robustness import (
    AttackedModel,
    RobustnessRow,
    attack,
    compare,
    robustness_table,
    strongest,
)
from .neural.keras_logits import KerasLogits
from .neural.small_cnn import small_cnn, train
from .plots import SheetColumn, contact_sheet
from .preprocessor import Preprocessor

__all__ = ["DemoResult", "run_demo"]

_SHEET_ROWS = 6
_SHEET_TITLE = "Examples made against the undefended model, seen through each defence"
_EXPLANATION = """\
- Clean: accuracy on {samples} test crops of {classes} photographs.
- Oblivious: accuracy on examples made against the undefended model, by an attacker who does not
  know that there is a defence.
- Adaptive: accuracy on examples made through the defence, with every gradient that it offers
  (exact, or an approximation: BPDA); of each example the smallest perturbation counts.
- Perturbation: how many times larger (median L2 norm) the adaptive perturbation had to be than
  the one that fools the undefended model. Below 1.0x the defence made the attack easier.

**The adaptive column is the one that counts: an attacker can know the defence.** A high oblivious
accuracy shows only that the attack was aimed at something else. What a defence buys against an
attacker who knows it is the factor in the last column.

Each example is the smallest change that the attack found, so it lies just across the decision
boundary. Stochastic defences ({stochastic}) are attacked and judged over several
draws; such an example must be wrong under every draw that the attack looks at, accuracy is counted
over fresh draws. ThermometerEncoding changes the shape of its input: it has a model of its own,
trained on encoded crops.
"""


@dataclass(frozen=True, eq=False)
class DemoResult:
    """What the demonstration found.

    Attributes
    ----------
    rows : tuple of RobustnessRow
        The undefended model first.
    explanation : str
        Markdown that defines the columns.
    settings : dict
        What was run: seed, numbers of crops, epochs.
    sheet : tuple of SheetColumn
        The contact sheet.
    """

    rows: tuple[RobustnessRow, ...]
    explanation: str
    settings: dict[str, Any]
    sheet: tuple[SheetColumn, ...]

    def to_markdown(self) -> str:
        """Return the table and its explanation."""
        return f"{robustness_table(list(self.rows))}\n{self.explanation}"

    def files(self) -> dict[str, bytes]:
        """Return the contents of the report, by file name."""
        document = {"settings": self.settings, "rows": [asdict(row) for row in self.rows]}
        picture = io.BytesIO()
        contact_sheet(self.sheet, title=_SHEET_TITLE).savefig(picture, format="png")
        return {
            "table.md": self.to_markdown().encode(),
            "table.json": (json.dumps(document, indent=2) + "\n").encode(),
            "contact_sheet.png": picture.getvalue(),
        }


def run_demo(
    *,
    seed: int = 0,
    epochs: int = 8,
    train_per_class: int = 150,
    test_per_class: int = 15,
    max_steps: int = 100,
    progress: Callable[[str, float], None] = lambda label, done: None,
) -> DemoResult:
    """Train a small network on photographs, defend it, and attack it with and without the defence.

    Parameters
    ----------
    seed : int
        Seed of the weights, of the order of training and of the draws of stochastic defences.
    epochs : int
        Passes over the training crops.
    train_per_class, test_per_class : int
        The most crops of each photograph in the training and the test set.
    max_steps : int
        Steps of 0.1 (L2) that the attack may take.
    progress : callable
        Called with what is being done and the fraction of the whole that is finished.

    Returns
    -------
    DemoResult

    Raises
    ------
    ImportError
        If a package of the extra ``demo`` is missing.
    """
    exhibits = _exhibits()
    stages = _stages(progress, 3 + sum(map(len, exhibits.values())))
    task = cut_crops(bundled_photographs(), train_per_class=train_per_class, test_per_class=test_per_class)

    def trained(x: Array, label: str) -> KerasLogits:
        model = small_cnn(x.shape[1:], len(task.class_names), seed=seed)
        train(model, x, task.y_train, epochs=epochs, seed=seed, on_epoch=stages(label))
        return KerasLogits(model)

    def attacked(name: str, model: KerasLogits, defence: Preprocessor | None) -> AttackedModel:
        return attack(
            DefendedModel(model, defence, seed=seed),
            task.x_test,
            task.y_test,
            max_steps=max_steps,
            on_step=stages(f"Attacking {name}"),
        )

    plain = trained(task.x_train, "Training the model")
    undefended = attacked("the undefended model", plain, None)
    rows = [compare("none", undefended, undefended)]
    defended = []
    for name, (defence, *others) in exhibits.items():
        model = plain
        if isinstance(defence, ThermometerEncoding):  # the model must fit the new shape
            model = trained(defence.transform(task.x_train), "Training on encoded crops")
        attempts = [attacked(name, model, variant) for variant in (defence, *others)]
        defended.append(strongest(attempts))
        rows.append(compare(name, defended[-1], undefended))
    return DemoResult(
        rows=tuple(rows),
        explanation=_EXPLANATION.format(
            samples=len(task.x_test),
            classes=len(task.class_names),
            stochastic=", ".join(type(d).__name__ for d, *_ in exhibits.values() if d.stochastic),
        ),
        settings={
            "seed": seed,
            "epochs": epochs,
            "training_crops": len(task.x_train),
            "test_crops": len(task.x_test),
            "classes": list(task.class_names),
            "max_steps": max_steps,
        },
        sheet=_sheet(task, undefended, defended, rows[1:]),
    )


def _exhibits() -> dict[str, list[Preprocessor]]:
    """Every image defence and a chain: each with every gradient that it offers to an attacker."""
    unit = (0.0, 1.0)
    medians = [SpatialSmoothing(3, gradient=gradient) for gradient in ("exact", "identity")]
    jpeg = JpegCompression(unit, quality=50)
    noise = GaussianAugmentation(
        0.05, augmentation=False, clip_values=unit, apply_fit=False, apply_predict=True
    )
    return {
        "FeatureSqueezing, 3 bits": [
            FeatureSqueezing(unit, 3, gradient=gradient) for gradient in ("soft", "identity")
        ],
        "SpatialSmoothing, 3x3": [*medians],
        "JpegCompression, quality 50": [jpeg],
        "ThermometerEncoding, 10 levels": [
            ThermometerEncoding(unit, 10, gradient=gradient) for gradient in ("surrogate", "identity")
        ],
        "TotalVarMin, keeps 30%": [TotalVarMin(0.3, clip_values=unit)],
        "GaussianAugmentation, sigma 0.05": [noise],
        "Chain, JPEG then median": [Chain([jpeg, median]) for median in medians],
    }


def _stages(progress: Callable[[str, float], None], total: int) -> Callable[[str], Callable[[float], None]]:
    """Return a function that opens the next of `total` stages of equal weight."""
    starts = iter(range(total))

    def stage(label: str) -> Callable[[float], None]:
        start = next(starts)
        return lambda done: progress(label, (start + done) / total)

    return stage


def _sheet(
    task: CropTask,
    undefended: AttackedModel,
    defended: list[AttackedModel],
    rows: list[RobustnessRow],
) -> tuple[SheetColumn, ...]:
    """Show crops of several photographs: as they are, attacked, and after each defence."""
    norms = undefended.adversarials.norms
    shown = _most_contrast(task, undefended.right & (norms <= np.median(norms[norms > 0])))
    clean, labels = task.x_test[shown], task.y_test[shown]
    moved = undefended.adversarials.x[shown]

    def column(title: str, subtitle: str, model: DefendedModel, x: Array) -> SheetColumn:
        seen, logits = model.view(x)
        classes = logits.argmax(axis=1)
        return SheetColumn(
            title=title,
            subtitle=subtitle,
            images=_as_image(seen),
            labels=[task.class_names[k] for k in classes],
            right=(classes == labels).tolist(),
        )

    return (
        column("Original", "", undefended.model, clean),
        column("Attacked", "against no defence", undefended.model, moved),
        SheetColumn(
            title="Difference",
            subtitle="10 times enlarged",
            images=np.clip(0.5 + 10 * (moved - clean), 0, 1),
            labels=[f"L2 norm {norm:.2f}" for norm in norms[shown]],
        ),
        *(
            column(
                row.defence.replace(", ", "\n"),
                f"oblivious {row.oblivious:.2f}, adaptive {row.adaptive:.2f}",
                attacked.model,
                moved,
            )
            for row, attacked in zip(rows, defended, strict=True)
        ),
    )


def _most_contrast(task: CropTask, preferred: Array) -> Array:
    """Return the index of one crop of each of the first photographs, a preferred one if any is."""
    contrast = task.x_test.std(axis=(1, 2, 3)) + preferred  # a standard deviation is below 1
    shown = range(min(_SHEET_ROWS, len(task.class_names)))
    return np.array([np.argmax(contrast * (task.y_test == k)) for k in shown])


def _as_image(x: Array) -> Array:
    """Average the levels of a thermometer code, so that it can be shown; pass on images."""
    image: Array = np.clip(x.reshape(*x.shape[:3], 3, -1).mean(axis=-1), 0, 1)
    return image
