import io
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure

from preshield import plots
from preshield.evaluation.report import Column, Curve, RobustnessReport, RobustnessRow, Threat
from preshield.plots import SheetColumn

RNG = np.random.default_rng(0)
IMAGES = np.linspace(0, 1, 2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
RATE = 8000


def subplots(*shape):
    return Figure().subplots(*shape, squeeze=False)


def shown(ax):
    """Pixels of the image in some axes."""
    return np.asarray(ax.images[0].get_array())


def texts(ax):
    return [text.get_text() for text in ax.texts]


# Figures


def test_pyplot_is_not_used_in_scripts():
    code = (
        "import sys, numpy as np; from preshield.plots import *;"
        "contact_sheet([SheetColumn('a', '', np.zeros((1, 2, 2, 3)), ['x'], [True])]);"
        "png(waveforms(np.zeros(9)));"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_scripts_that_use_pyplot_get_no_open_figures():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    before = pyplot.get_fignums()
    plots.waveforms(np.zeros(9))
    assert pyplot.get_fignums() == before


def test_a_notebook_shows_each_plot_once():
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    cells = [
        "import numpy as np\nfrom preshield import plots",
        "plots.waveforms(np.zeros(9))",
        "axes = plots.contact_sheet([plots.SheetColumn('a', '', np.zeros((1, 2, 2, 3)))])",
        "plots.png(plots.waveforms(np.zeros(9)))[:0]",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    pictures = [
        sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in notebook.cells
    ]
    assert pictures == [0, 1, 1, 0]


def test_png_is_the_figure_of_the_axes():
    from PIL import Image

    axes = plots.contact_sheet([SheetColumn("", "", np.broadcast_to([1.0, 0, 0], (1, 4, 4, 3)))])
    with Image.open(io.BytesIO(plots.png(axes))) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels[len(pixels) // 2, pixels.shape[1] // 2] == [255, 0, 0]).all()
    assert (pixels[0, 0] == 255).all()


@pytest.mark.parametrize(
    "draw",
    [
        lambda ax: plots.waveforms([0.0, 1.0], ax=ax),
        lambda ax: plots.spectrogram(np.ones(100), RATE, ax=ax),
        lambda ax: plots.spectrum(IMAGES, ax=ax),
        lambda ax: plots.curve(Curve("eps", (0, 1), {"none": (1.0, 0.0)}, "adaptive"), ax=ax),
        lambda ax: plots.accuracies(report(), ax=ax),
    ],
    ids=["waveforms", "spectrogram", "spectrum", "curve", "accuracies"],
)
def test_the_axes_passed_in_are_drawn_into_and_returned(draw):
    ax = Figure().subplots()
    assert draw(ax) is ax
    assert ax.has_data()
    with pytest.raises(TypeError, match="`ax` must be one Matplotlib Axes, got ndarray"):
        draw(subplots(1, 2))


@pytest.mark.parametrize(
    ("shape", "draw"),
    [
        ((2, 1), lambda axes: plots.contact_sheet([SheetColumn("a", "", IMAGES)], axes=axes)),
        ((2, 4), lambda axes: plots.before_after(IMAGES, IMAGES**2, IMAGES, axes=axes)),
        ((1, 2), lambda axes: plots.frame_strip(IMAGES, axes=axes)),
        ((1, 2), lambda axes: plots.spectra({"a": IMAGES, "b": IMAGES}, axes=axes)),
        ((1, 11), lambda axes: plots.report(report(images=True), axes=axes)),
    ],
    ids=["contact_sheet", "before_after", "frame_strip", "spectra", "report"],
)
def test_the_array_of_axes_passed_in_is_drawn_into_and_returned(shape, draw):
    axes = subplots(*shape)
    assert [id(ax) for ax in np.ravel(draw(axes))] == [id(ax) for ax in axes.flat]
    with pytest.raises(
        ValueError, match=rf"`axes` must be an array of {shape[0]} x {shape[1]} Axes, got shape"
    ):
        draw(subplots(3, 5))
    with pytest.raises(TypeError, match="`axes` must hold Matplotlib Axes, got NoneType"):
        draw(np.full(shape, None))


# Pictures


def test_contact_sheet():
    axes = plots.contact_sheet(
        [
            SheetColumn("Original", "", IMAGES, ["cat", "dog"], [True, False]),
            SheetColumn("Difference", "enlarged", IMAGES**2, ["0.1", "0.2"]),
        ],
        title="Two columns",
    )
    captions = [[ax.get_xlabel() for ax in row] for row in axes]
    assert captions == [["✓ cat", "0.1"], ["✗ dog", "0.2"]]
    assert axes[0, 0].xaxis.label.get_color() != axes[1, 0].xaxis.label.get_color()
    assert axes[1, 0].spines["top"].get_edgecolor()[:3] != (0, 0, 0)
    assert [ax.get_title() for ax in axes[0]] == ["Original", "Difference"]
    assert axes[0, 0].figure.get_suptitle() == "Two columns"
    np.testing.assert_array_equal(shown(axes[1, 0]), IMAGES[1])
    np.testing.assert_array_equal(shown(axes[0, 1]), IMAGES[0] ** 2)


def test_grey_images_and_other_ranges():
    images = np.array([[0, 51], [102, 255]], dtype=np.uint8).reshape(1, 2, 2, 1)
    (ax,) = plots.contact_sheet([SheetColumn("", "", images, clip_values=(0, 255))])[0]
    np.testing.assert_allclose(shown(ax), [[0, 0.2], [0.4, 1]])
    assert ax.images[0].get_clim() == (0, 1)  # a dark image stays dark
    assert ax.images[0].get_cmap().name == "gray"
    (ax,) = plots.contact_sheet([SheetColumn("", "", images - 51.0, clip_values=(-51, 153))])[0]
    np.testing.assert_allclose(shown(ax), [[0, 0.25], [0.5, 1]])


def test_difference_is_amplified_about_grey():
    clean = np.full((2, 1, 2, 1), 100.0)
    attacked = clean + np.array([3.0, -4.0, 0.0, 2.0]).reshape(2, 1, 2, 1)
    column = plots.difference_column(clean, attacked, amplify=10, clip_values=(0, 200))
    np.testing.assert_allclose(column.images.ravel(), [0.65, 0.3, 0.5, 0.6])
    assert (column.subtitle, column.labels) == ("×10", ["L2 5", "L2 2"])
    column = plots.difference_column(clean, attacked, clip_values=(0, 200), norm="linf")
    np.testing.assert_allclose(column.images.ravel(), [0.875, 0, 0.5, 0.75])  # the largest reaches the end
    assert (column.subtitle, column.labels) == ("×25", ["L∞ 4", "L∞ 2"])


def test_no_difference_is_grey():
    assert (plots.difference_column(IMAGES, IMAGES).images == 0.5).all()


def test_unsigned_integers_have_negative_differences():
    clean = np.full((1, 1, 1, 1), 9, dtype=np.uint8)
    column = plots.difference_column(clean, clean - 4, amplify=1, clip_values=(0, 10))
    assert column.images.item() == pytest.approx(0.1)
    assert column.labels == ["L2 4"]


def test_before_after_marks_predictions():
    codes = np.repeat(IMAGES, 2, axis=-1) + np.tile([0.1, -0.1], 3)  # two codes for each channel
    axes = plots.before_after(
        IMAGES,
        IMAGES / 2,
        {"median": IMAGES / 4, "code": codes},
        labels=["cat", "dog"],
        predictions={"Attacked": ["dog", "dog"], "median": ["cat", "cat"]},
    )
    assert [ax.get_title() for ax in axes[0]] == ["Before", "Attacked", "Difference", "median", "code"]
    assert [ax.get_xlabel() for ax in axes[0]] == ["cat", "✗ dog", axes[0, 2].get_xlabel(), "✓ cat", ""]
    np.testing.assert_array_equal(shown(axes[1, 3]), IMAGES[1] / 4)
    np.testing.assert_allclose(shown(axes[0, 4]), np.clip(IMAGES[0], 0, 1), atol=1e-12)


def test_frames_are_evenly_spaced():
    clip = np.linspace(0, 1, 11)[:, None, None, None] * np.ones((11, 2, 2, 3))
    axes = plots.frame_strip({"clean": clip, "attacked": 1 - clip}, frames=3, rate=5)
    assert [[shown(ax)[0, 0, 0] for ax in row] for row in axes] == [[0, 0.5, 1], [1, 0.5, 0]]
    assert [ax.get_title() for ax in axes[0]] == ["0.00 s", "1.00 s", "2.00 s"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["clean", "attacked"]
    assert plots.frame_strip(clip, frames=50).shape == (1, 11)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.contact_sheet([]), "`columns` must hold at least one SheetColumn"),
        (lambda: plots.contact_sheet([SheetColumn("a", "", IMAGES[:0])]), "not empty.*got \\(0, 4, 4, 3\\)"),
        (
            lambda: plots.contact_sheet([SheetColumn("a", "", IMAGES[0])]),
            "add the first axis with x\\[None\\]",
        ),
        (
            lambda: plots.contact_sheet([SheetColumn("a", "", np.moveaxis(IMAGES, -1, 1))]),
            "`images of column 'a'` must have the shape \\(N, H, W, C\\).*numpy.moveaxis\\(x, 1, -1\\)",
        ),
        (
            lambda: plots.contact_sheet([SheetColumn("a", "", IMAGES), SheetColumn("b", "", IMAGES[:1])]),
            "each of the 2 rows, but `images` of column 'b' has 1",
        ),
        (
            lambda: plots.contact_sheet([SheetColumn("a", "", IMAGES, ["one"])]),
            "each of the 2 rows, but `labels` of column 'a' has 1",
        ),
        (
            lambda: plots.contact_sheet([SheetColumn("a", "", np.full((1, 2, 2, 3), 200, np.uint8))]),
            "values up to 200 for clip_values=.*pass for example clip_values=\\(0, 255\\)",
        ),
        (lambda: plots.contact_sheet([SheetColumn("a", "", IMAGES * np.nan)]), "must be finite"),
        (lambda: plots.difference_column(IMAGES, IMAGES[:1]), "`clean` and `attacked` must have one shape"),
        (lambda: plots.difference_column(IMAGES, IMAGES, norm="l1"), "`norm` must be one of 'l2', 'linf'"),
        (lambda: plots.difference_column(IMAGES, IMAGES, amplify=-1), "`amplify` must be at least 0"),
        (
            lambda: plots.before_after(IMAGES, IMAGES, IMAGES, predictions={"after": ["x", "y"]}),
            "`predictions` must have titles of columns as keys \\(Before, Attacked, Defended\\), got 'after'",
        ),
        (lambda: plots.frame_strip(IMAGES[0]), "must have the shape \\(F, H, W, C\\)"),
        (lambda: plots.frame_strip({"a": IMAGES, "b": IMAGES[:1]}), "one number of frames, got 1, 2"),
        (lambda: plots.frame_strip({}), "at least one video.*got none"),
        (lambda: plots.frame_strip(IMAGES, frames=0), "`frames` must be at least 1"),
    ],
)
def test_pictures_refuse(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


# Sound


def test_short_signals_are_drawn_as_they_are():
    signals = {"clean": RNG.normal(size=50), "attacked": RNG.normal(size=40)}
    ax = plots.waveforms(signals, rate=10, stacked=False)
    for line, (name, signal) in zip(ax.lines, signals.items(), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), signal)
        np.testing.assert_allclose(line.get_xdata(), np.arange(len(signal)) / 10)
        assert line.get_label() == name
    assert ax.get_xlim() == (0, 5)


def test_long_signals_keep_every_peak():
    signal = RNG.normal(size=1_000_003)
    signal[[123_456, 1_000_001]] = 100, -100
    ax = plots.waveforms(signal)
    x, y = ax.lines[0].get_data()
    assert len(x) < 5000
    assert (np.diff(x) > 0).all()
    np.testing.assert_array_equal(y, signal[x.astype(int)])  # every point is a sample
    for start in range(0, 1_000_003, 100_000):
        part, drawn = signal[start : start + 100_000], y[(x >= start) & (x < start + 100_000)]
        assert (drawn.min(), drawn.max()) == (part.min(), part.max())


def test_stacked_signals_have_a_lane_each():
    signals = np.array([[0.0, 1.0, 0.0], [0.0, -2.0, 0.0]])
    ax = plots.waveforms(signals, labels=["one", "two"])
    zeros = ax.get_yticks()
    assert [label.get_text() for label in ax.get_yticklabels()] == ["one", "two"]
    for line, signal, zero in zip(ax.lines, signals, zeros, strict=True):
        np.testing.assert_allclose(line.get_ydata() - zero, signal)
    assert zeros[0] - 2 > zeros[1] + 2  # lanes do not touch
    assert ax.get_ylim()[0] < zeros[1] - 2


def test_spectrogram_of_a_chirp():
    t = np.arange(2 * RATE) / RATE
    frequency = 500 + 1000 * t  # Hz, rises by 1 kHz in a second
    ax = plots.spectrogram(0.1 * np.sin(2 * np.pi * (500 * t + 500 * t**2)), RATE)
    levels = shown(ax)
    left, right, bottom, top = ax.images[0].get_extent()
    times = left + (np.arange(levels.shape[1]) + 0.5) * (right - left) / levels.shape[1]
    loudest = bottom + (levels.argmax(axis=0) + 0.5) * (top - bottom) / len(levels)
    inside = (times > 0.1) & (times < 1.9)
    np.testing.assert_allclose(1000 * loudest[inside], np.interp(times[inside], t, frequency), atol=35)
    assert times[0] == pytest.approx(0, abs=1e-12)
    assert levels.max() == pytest.approx(-20, abs=1.5)  # a tenth of full scale
    low, high = ax.images[0].get_clim()
    assert high == levels.max()
    assert high - low == 80
    assert ax.figure.axes[1].get_ylabel() == "Level (dB)"


def test_spectrogram_has_0_db_at_full_scale():
    sine = 32768 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)
    ax = plots.spectrogram(sine, RATE, window=256, full_scale=32768, limits=(-60, 0))
    levels = shown(ax)
    assert levels.shape[0] == 129
    np.testing.assert_allclose(levels[32, 4:-4], 0, atol=1e-6)  # 1000 Hz is bin 32 of 256
    assert levels[64:, 4:-4].max() < -60
    assert ax.images[0].get_clim() == (-60, 0)


def test_silence_has_a_spectrogram():
    assert np.isfinite(shown(plots.spectrogram(np.zeros(100), RATE))).all()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.waveforms([]), "`x` must hold at least one signal"),
        (lambda: plots.waveforms({}), "`x` must hold at least one signal, got none"),
        (lambda: plots.waveforms(np.zeros((2, 3, 4))), "must be a signal of shape \\(T,\\).*got \\(3, 4\\)"),
        (lambda: plots.waveforms([[1.0, np.inf]]), "`x` must be finite"),
        (lambda: plots.waveforms(np.zeros((2, 9)), labels=["a"]), "each of the 2 signals, got 1 names"),
        (lambda: plots.waveforms(np.zeros(9), rate=0), "`rate` must be at least 1e-12, got 0"),
        (lambda: plots.spectrogram(np.zeros((2, 9)), RATE), "got \\(2, 9\\); draw one of the 2 signals"),
        (lambda: plots.spectrogram(np.zeros(9), -1), "`rate` must be at least 1e-12, got -1"),
        (lambda: plots.spectrogram(np.zeros(9), RATE, window=1), "`window` must be at least 2"),
        (
            lambda: plots.spectrogram(np.zeros(9), RATE, limits=(0, -60)),
            "`limits` must have darkest < brightest",
        ),
    ],
)
def test_sound_refuses(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


# Spectra


@pytest.mark.parametrize("height", [32, 33])
def test_spectrum_of_a_sinusoid_peaks_at_its_frequency(height):
    rows, columns = np.mgrid[:height, :20]
    wave = np.sin(2 * np.pi * (rows * 8 / height + columns * 3 / 20))  # cycles per pixel: 8 / height, 3 / 20
    ax = plots.spectrum(np.stack([wave, 0.5 * wave])[..., None])
    amplitudes = shown(ax)
    left, right, bottom, top = ax.images[0].get_extent()
    peaks = np.argwhere(amplitudes > -1)
    at = [
        (top + (r + 0.5) * (bottom - top) / height, left + (c + 0.5) * (right - left) / 20) for r, c in peaks
    ]
    np.testing.assert_allclose(at, [(-8 / height, -3 / 20), (8 / height, 3 / 20)], atol=1e-12)
    assert amplitudes.max() == 0
    assert np.sort(amplitudes.ravel())[-3] < -10  # nothing else


def test_spectrum_is_relative_and_averages():
    constant, impulse = np.ones((1, 4, 4, 1)), np.zeros((1, 4, 4, 1))
    impulse[0, 0, 0] = 4  # amplitude 4 at every frequency, beside 16 at zero
    both = shown(plots.spectrum(np.concatenate([constant, impulse])))
    assert both[2, 2] == 0
    np.testing.assert_allclose(np.delete(both.ravel(), 10), np.log10(4 / 20))


def test_spectra_share_one_scale():
    noise = RNG.normal(size=(2, 16, 16, 3))
    axes = plots.spectra({"clean": noise + 100, "difference": noise})
    assert [ax.get_title() for ax in axes] == ["clean", "difference"]
    assert axes[0].images[0].get_clim() == axes[1].images[0].get_clim()
    np.testing.assert_array_equal(shown(axes[1]), shown(plots.spectrum(noise)))
    assert len(axes[0].figure.axes) == 3  # one scale
    assert axes[0].images[0].get_clim() != plots.spectrum(noise).images[0].get_clim()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plots.spectrum(IMAGES[0]), "`x` must be images.*add the batch axis with x\\[None\\]"),
        (lambda: plots.spectrum(IMAGES[:0]), "at least one, got shape \\(0, 4, 4, 3\\)"),
        (lambda: plots.spectrum(IMAGES, limits=(0, 0)), "`limits` must have darkest < brightest"),
        (lambda: plots.spectrum(IMAGES, limits=-4), "`limits` must be a pair"),
        (lambda: plots.spectra({}), "`batches` must hold at least one"),
        (lambda: plots.spectra({"clean": IMAGES[0]}), "`batches\\['clean'\\]` must be images"),
    ],
)
def test_spectra_refuse(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


# Records


def column(accuracy, norms=1.0):
    outcomes = (np.arange(100) < round(100 * accuracy)).astype(np.int8)[None]
    return Column(outcomes, np.full(100, norms), "made up", 1.0)


def report(*, minimum=True, images=False, curves=(), pictures=None, shape=()):
    """An undefended model, a defence that only looks good, and one that has no gradients."""
    if images:
        pictures = {"clean": IMAGES[:1], "attacked": IMAGES[:1] ** 2, "labels": np.array([7])}
    pictures = pictures or {}
    own = {"defended": pictures["attacked"] / 2, "attacked": pictures["attacked"] / 4} if pictures else {}
    columns = [
        {"clean": 0.9, "noise": 0.88, "adaptive": 0.0},
        {"clean": 0.85, "noise": 0.84, "oblivious": 0.6, "adaptive": 0.1},
        {"clean": 0.8, "noise": 0.8, "oblivious": 0.7, "black-box": 0.3},
    ]
    names = ["undefended", "JpegCompression, quality=50, subsampling 2", "median"]
    rows = [
        RobustnessRow(
            name,
            None,
            {key: column(accuracy, norms=1.0 + k) for key, accuracy in accuracies.items()},
            0.001,
            pictures={} if k == 0 else own,
        )
        for k, (name, accuracies) in enumerate(zip(names, columns, strict=True))
    ]
    threat = Threat("l2-minimum" if minimum else "linf", None if minimum else 0.1, (0.0, 1.0))
    return RobustnessReport(threat, tuple(rows), (), tuple(curves), {}, {}, pictures)


def test_curve_draws_each_row():
    accuracy = {f"row {k}": tuple(RNG.uniform(size=3)) for k in range(9)}
    ax = plots.curve(Curve("quality", (10, 50, 90), accuracy, "worst case"))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("quality", "Accuracy (worst case)")
    assert ax.get_xscale() == "linear"
    assert ax.get_ylim() == (0, 1)
    for line, (name, values) in zip(ax.lines, accuracy.items(), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.transpose([(10, 50, 90), values]))
        assert line.get_label() == name
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(accuracy)
    looks = {(line.get_linestyle(), line.get_marker()) for line in ax.lines}
    assert len(looks) >= 8  # told apart without colour
    assert len({(line.get_color(), line.get_marker()) for line in ax.lines}) == 9


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((1, 2, 4, 8, 16, 32, 64), "log"),
        ((0, 0.001, 0.01, 0.1, 1), "symlog"),
        (tuple(np.linspace(0, 2, 101)), "linear"),
        ((10, 25, 50, 75, 90), "linear"),
        ((-1, 0.001, 0.01, 100), "linear"),
        ((0, 1), "linear"),
    ],
)
def test_values_that_crowd_get_a_logarithmic_axis(values, scale):
    ax = plots.curve(Curve("eps", values, {"none": (0.5,) * len(values)}, "adaptive"))
    assert ax.get_xscale() == scale
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), values)


@pytest.mark.parametrize("values", [("none", "JpegCompression"), (True, False), (None, 3), (1, float("inf"))])
def test_values_that_are_no_numbers_stand_side_by_side(values):
    ax = plots.curve(Curve("removed", values, {"chain": (0.5, 0.1)}, "adaptive"))
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [0, 1])
    labels = [label.get_text().replace("-\n", "") for label in ax.get_xticklabels()]
    assert labels == list(map(str, values))


def test_empty_curve():
    with pytest.raises(ValueError, match="`curve` must hold values and rows, got 0 and 1"):
        plots.curve(Curve("eps", (), {"none": ()}, "adaptive"))


def test_accuracies():
    found = report()
    ax = plots.accuracies(found)
    lines = {line.get_label(): line.get_xdata() for line in ax.lines}
    np.testing.assert_allclose(lines["worst case"], [0, 0.1, 0.3])
    np.testing.assert_allclose(lines["clean"], [0.9, 0.85, 0.8])
    np.testing.assert_allclose(lines["oblivious"], [np.nan, 0.6, 0.7])
    np.testing.assert_allclose(lines["adaptive"], [0, 0.1, np.nan])
    (spans,) = ax.collections
    np.testing.assert_allclose([s[:, 0] for s in spans.get_segments()], [(0, 0.9), (0.1, 0.85), (0.3, 0.8)])
    assert texts(ax) == ["worst\ncase", "0.00", "0.10", "0.30", "norm\nratio", "1.0×", "2.0×", "3.0×"]
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["undefended", "JpegCompression,\nquality=50, subsampling 2", "median"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row is above
    assert texts(plots.accuracies(report(minimum=False))) == ["worst\ncase", "0.00", "0.10", "0.30"]


def test_a_report_without_rows():
    empty = RobustnessReport(Threat("linf", 0.1, (0.0, 1.0)), (), (), (), {}, {})
    with pytest.raises(ValueError, match="`report` must have at least one row"):
        plots.report(empty)


def test_report_of_images():
    curves = [Curve("eps", (0, 1), {"none": (1.0, 0.0)}, "adaptive")] * 3
    axes = plots.report(report(images=True, curves=curves))
    assert axes[0].get_xlabel() == "Accuracy"
    assert [ax.get_ylabel() for ax in axes[1:4]] == ["Accuracy (adaptive)"] * 3
    above, below = axes[4:].reshape(2, 5)
    attacked = IMAGES[0] ** 2
    np.testing.assert_array_equal(shown(above[0]), IMAGES[0])
    np.testing.assert_array_equal(shown(above[1]), attacked)
    np.testing.assert_array_equal(shown(above[3]), attacked / 2)
    np.testing.assert_array_equal(shown(below[3]), attacked / 4)
    assert above[0].get_xlabel() == "7"
    assert below[4].get_xlabel() == f"L2 {np.linalg.norm(attacked / 4 - IMAGES[0]):.3g}"
    assert not any(ax.axison for ax in below[:3])
    assert len({ax.figure for ax in axes}) == 1


def test_report_of_images_with_channels_first():
    first = np.moveaxis(IMAGES, -1, 1)
    axes = plots.report(report(pictures={"clean": first, "attacked": first / 2}))
    np.testing.assert_array_equal(shown(axes[1]), IMAGES[0])


def test_report_of_signals():
    clean = np.sin(np.arange(300).reshape(3, 100) / 9)
    axes = plots.report(report(pictures={"clean": clean, "attacked": clean + 0.01}))
    assert len(axes) == 3  # two of the signals
    lines = axes[2].lines
    zeros = axes[2].get_yticks()
    largest = np.abs(clean[1]).max()
    np.testing.assert_allclose(lines[0].get_ydata(), clean[1])
    np.testing.assert_allclose(lines[2].get_ydata() - zeros[2], largest)  # the amplified difference
    np.testing.assert_allclose(lines[4].get_ydata() - zeros[4], (clean[1] + 0.01) / 2)
    labels = [label.get_text() for label in axes[2].get_yticklabels()]
    assert labels[:3] == ["Before", "Attacked", f"Difference ×{100 * largest:.3g}"]


def test_report_of_signals_of_different_lengths():
    clean = np.empty(2, dtype=object)
    clean[:] = [np.ones(30), np.ones(20)]
    axes = plots.report(report(pictures={"clean": clean, "attacked": clean * 0.5}))
    assert [len(ax.lines[0].get_xdata()) for ax in axes[1:]] == [30, 20]


def test_report_of_videos():
    clip = np.linspace(0, 1, 10)[None, :, None, None, None] * np.ones((1, 10, 4, 4, 3))
    axes = plots.report(report(pictures={"clean": clip, "attacked": clip * 0.5}))
    strips = axes[1:].reshape(5, 8)
    assert [row[-1].images[0].get_array()[0, 0, 0] for row in strips] == [1, 0.5, 0, 0.25, 0.25]
    assert strips[2, 0].get_ylabel() == "Difference ×1"


@pytest.mark.parametrize("pictures", [None, {"clean": np.zeros((2, 3, 4)), "attacked": np.zeros((2, 3, 4))}])
def test_other_samples_are_not_shown(pictures):
    assert len(plots.report(report(pictures=pictures))) == 1
