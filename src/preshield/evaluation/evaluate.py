"""One call that attacks a model through its defences and reports what is left."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .._core.checks import check_bool, check_integer, check_number, check_option
from .._core.errors import ArgumentError
from .classifiers import takes_channels_first
from .preprocessed import check_pixels, name_of, names_of, preprocessing_of, with_normalisation
from .report import THREATS, RobustnessReport, Threat
from .sources import samples_of
from .subjects import (
    AUTOATTACK,
    as_class_names,
    as_factories,
    as_labels,
    as_samples,
    as_subjects,
    check_classes,
    check_columns,
    head_of,
    named_classifier,
    nb_classes,
    range_of,
)

if TYPE_CHECKING:
    from .run import Run

__all__ = ["evaluate", "prepared"]

BUDGET = 100
MOST_SAMPLES = 2**32  # that have numbers
MAX_SEED = 2**32 - 1  # of NumPy's global generator, from which the attacks of ART draw


def evaluate(
    classifier: Any,
    x: Any,
    y: Any = None,
    defences: Any = (),
    *,
    threat: str | None = None,
    eps: float | None = None,
    attacks: Any = None,
    eot: int = 16,
    seed: int = 0,
    batch_size: int = 128,
    budget: int | None = None,
    verbose: bool = True,
    surrogate: Any = None,
    clip_values: tuple[float, float] | None = None,
    columns: Sequence[str] | None = None,
    first: int = 0,
    keep_examples: Any = None,
    checkpoint: Any = None,
    client: Any = None,
    fields: Sequence[str] | None = None,
    preprocess: Any = None,
    class_names: Sequence[str] | None = None,
) -> RobustnessReport:
    """Attack a classifier without and through each defence, and report what is left.

    Parameters
    ----------
    classifier : object
        A torch module, a Keras model, a JAX function, an ART classifier, what `load_pretrained` returns; or
        anything with `predict_proba` or `predict`, or a callable, which gives scores `(N, K)` or labels
        `(N,)`, -1 for a rejected sample. Without gradients the black-box attack stands in for the adaptive
        one, and the report says so. A model is attacked on its own device, in single precision, or in double
        if it computes in that. Scores may be an entry or attribute `logits`, `scores` or `out` of what a
        model returns, its only entry, or the first element of a tuple.
    x : array_like, shape (N, ...), or iterable of batches
        Samples: images, clips, waveforms or features; a memory-mapped array is read one batch at a time. Or
        samples with their labels: a `DataLoader` or `Dataset` of torch, a `tf.data.Dataset`, a data set of
        Hugging Face, any iterable of batches `(x, y)`. These are read once, in their order, into a temporary
        file, as are arrays of Dask, zarr and h5py.
    y : array_like, shape (N,) or (N, K), optional
        Labels: indices, one-hot rows, or probabilities with one largest entry in each row. To be left out if
        `x` brings them.
    defences : Preprocessor, or list or dict of them, optional
        What to evaluate; `Chain`, `MajorityVote` and a fitted `SqueezeDetector` too. In a dict, names of the
        rows; a value may be `(defence, classifier)` where a defence needs a classifier of its own. The
        undefended classifier is always evaluated.
    threat : {"l2-minimum", "linf-minimum", "l1-minimum", "linf", "l2"}, optional
        The smallest perturbation that changes the prediction, or any up to `eps`, in this norm. By default
        "l2-minimum"; with `eps` it must be given.
    eps : float, optional
        Bound of the perturbation. For the smallest one, bound of the black-box attack; by default it may
        go, from each sample, twice as far as the attack on the undefended classifier went, or, where that
        found nothing, a twentieth of the diagonal of the range.
    attacks : "autoattack", or sequence or dict of callables, optional
        White-box attacks instead of the default one. "autoattack" is the suite of Croce and Hein 2020 with
        its own budget, for a threat with a bound. A callable makes an ART attack for a classifier: a class
        such as `DeepFool`, or a function of the classifier. The best of them counts for each sample.
    eot : int, default 16
        Draws of a stochastic defence over which gradients are averaged and predictions repeated.
    seed : int, default 0
        Seed of all that is random; with `attacks` at most 2**32 - 1.
    batch_size : int, default 128
        Samples that are attacked at once.
    budget : int, default 100
        Gradients that the white-box attack may ask for, for each sample and each gradient that a defence
        offers, each of them averaged over `eot` draws; within a bound, the strongest one has most of the sum.
        The black-box attack has four queries for each. The report states how many passes were spent.
    verbose : bool, default True
        Show a progress bar.
    surrogate : object, optional
        A classifier like `classifier`, for the column "transfer".
    clip_values : tuple of float, optional
        Smallest and largest value of a sample. By default those of an ART classifier, or else the first of
        (0, 1), (-1, 1) and (0, 255) that holds all of `x`.
    columns : sequence of str, optional
        Which columns to evaluate beside "clean", of "noise", "oblivious", "transfer", "shared", "black-box"
        and "adaptive"; all by default.
    first : int, default 0
        Number of the first sample of `x` in the data set. Reports of parts of it, evaluated anywhere and in
        any order, become one with `RobustnessReport.merge`.
    keep_examples : path, optional
        Folder for a memory-mapped ".npy" file of each row and column, or a ".npz" file for all; the attribute
        `examples` of the report reads the adversarial examples back.
    checkpoint : path, optional
        Folder in which each finished batch is kept. The same call goes on from there after a crash.
    client : dask.distributed.Client or concurrent.futures.Executor, optional
        Spreads the batches over its workers. The report is the same.
    fields : sequence of str, optional
        Names of the samples and of the labels, where the batches of `x` are mappings. By default "image",
        "img", "pixel_values" or "x", and "label", "labels" or "y".
    preprocess : callable or transform, optional
        What `classifier` and `surrogate`, a torch module, a Keras model or a function, need between a
        defence and themselves: a differentiable function of batches, such as a normalisation. From
        `weights.transforms()` or a `Compose` of torchvision, a transform of timm or an image processor of
        transformers, the resize and the crop are taken: they are applied to `x`, pictures of Pillow or of
        `uint8`, before the defences. Classifiers that are paired with a defence, and votes, do without.
    class_names : sequence of str, optional
        Names of the classes, in the order of the scores, for the pictures of the report. By default those
        that a `PretrainedModel` knows.

    Returns
    -------
    RobustnessReport
        Prints as a table; shows itself in a notebook; `to_html()` writes everything in one file. After
        Ctrl-C, the rows that were finished.

    Raises
    ------
    TypeError, ValueError
        If an argument breaks its rule, or a defence hands the classifier a shape that it cannot take; before
        any attack runs. What a model or a defence raises itself comes through as it is, with a note. Once a
        row is finished, the attribute `report` of the error holds what Ctrl-C would have returned.
    ImportError
        If an ART attack is asked for and ART is missing.

    Warns
    -----
    UserWarning
        If the classifier predicts the labels as badly as chance; before any attack runs.

    Notes
    -----
    Everything random depends on `seed`, on the number of a sample and on the step: not on `batch_size`, on
    the workers, or on how the samples were split, as far as the model gives a sample the same scores in
    whatever batch.

    Examples
    --------
    >>> import numpy as np
    >>> from preshield import FeatureSqueezing, evaluate
    >>> x, y = np.random.default_rng(0).random((20, 4), dtype=np.float32), np.arange(20) % 2
    >>> x[:, 0] = 0.2 + 0.6 * y
    >>> def classifier(x):
    ...     return np.stack([0.5 - x[:, 0], x[:, 0] - 0.5], axis=1)
    >>> report = evaluate(classifier, x, y, [FeatureSqueezing((0, 1), 1)], verbose=False)
    >>> report["FeatureSqueezing"].columns["clean"].accuracy
    1.0
    """
    given = dict(locals())
    from .plausibility import warn_near_chance

    parts = preprocessing_of(classifier, preprocess, x)
    given["preprocess"] = parts.normalise
    with samples_of(
        x,
        y,
        fields=given.pop("fields"),
        geometry=parts.geometry,
        channels_first=takes_channels_first(classifier),
        verbose=verbose,
    ) as (given["x"], given["y"]):
        run = prepared(**given)
        warn_near_chance(run.plan, run.x, run.y, run.batch_size)
        return run.report(defences, name_of(classifier), verbose=verbose)


def prepared(
    classifier: Any,
    x: Any,
    y: Any,
    defences: Any,
    *,
    threat: str | None,
    eps: float | None,
    attacks: Any,
    eot: int,
    seed: int,
    batch_size: int,
    budget: int | None,
    verbose: bool,
    surrogate: Any,
    clip_values: tuple[float, float] | None,
    columns: Sequence[str] | None,
    first: int,
    keep_examples: Any,
    checkpoint: Any,
    client: Any,
    preprocess: Callable[[Any], Any] | None,
    class_names: Sequence[str] | None,
) -> "Run":
    """Check the arguments of `evaluate`, and return the work that they ask for."""
    from .attacks import Attacker
    from .batch import BatchEvaluation
    from .checkpoint import check_checkpoint
    from .examples import check_place
    from .run import Run
    from .workers import check_client

    check_bool(verbose=verbose)
    if eps is not None:
        check_number("eps", eps, 0)
    if threat is None and eps is not None:
        raise ArgumentError(
            f"`threat` must be given with `eps`, got eps={eps} alone. For any perturbation up to it:\n"
            f'    threat="linf", eps={eps}\nFor the smallest one, where `eps` bounds the black-box attack:\n'
            f'    threat="l2-minimum", eps={eps}'
        )
    threat = "l2-minimum" if threat is None else threat
    check_option("threat", threat, THREATS)
    check_integer("eot", eot, 1)
    check_integer("seed", seed, 0, None if attacks is None else MAX_SEED)
    check_integer("batch_size", batch_size, 1)
    check_integer("first", first, 0)
    if budget is not None:
        check_integer("budget", budget, 1)
    if eps is None and not threat.endswith("-minimum"):
        raise ArgumentError(
            f"`eps` must be given with threat={threat!r}: the bound of the perturbation, got None."
        )
    names = check_columns(columns, surrogate)
    place, folder = check_place(keep_examples), check_checkpoint(checkpoint)
    check_client(client)
    factories = as_factories(attacks, threat)
    x, y = as_samples(x), as_labels(y)
    if len(x) != len(y):
        raise ArgumentError(f"`y` must hold one label for each of the {len(x)} samples of `x`, got {len(y)}.")
    if first + len(x) > MOST_SAMPLES:
        raise ArgumentError(f"`first` must be at most 2**32 minus the {len(x)} samples of `x`, got {first}.")
    low, high = range_of(clip_values, classifier, x)
    check_pixels(classifier, preprocess, low, high)
    shape = x.shape[1:]
    classifier = with_normalisation(classifier, preprocess, shape)
    surrogate = None if surrogate is None else with_normalisation(surrogate, preprocess, shape)
    subjects = as_subjects(classifier, defences, x, y)
    if factories is not None and AUTOATTACK in factories.values():
        check_classes(subjects)
    classes = max([int(y.max()) + 1, 2, *(nb_classes(subject.classifier) or 0 for subject in subjects)])
    return Run(
        x,
        y,
        BatchEvaluation(
            subjects,
            None if surrogate is None else named_classifier(surrogate, head_of(x), y, "surrogate"),
            Attacker(
                threat=Threat(threat, None if eps is None else float(eps), (low, high)),
                budget=int(budget or BUDGET),
                factories=factories,
                seed=int(seed),
            ),
            eot=int(eot),
            columns=names,
            nb_classes=classes,
            input_shape=x.shape[1:],
            first=int(first),
            keeps=place is not None,
        ),
        batch_size=int(batch_size),
        keep_examples=place,
        checkpoint=folder,
        client=client,
        class_names=as_class_names(class_names, classes) or names_of(classifier),
    )
