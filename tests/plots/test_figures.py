import io
import subprocess
import sys

import numpy as np
import pytest

from preshield import plots
from preshield.evaluation.report import Curve
from preshield.plots import SheetColumn
from tests.plots.helpers import IMAGES, report, subplots


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
        lambda ax: plots.spectrogram(np.ones(100), 8000, ax=ax),
        lambda ax: plots.spectrum(IMAGES, ax=ax),
        lambda ax: plots.curve(Curve("eps", (0, 1), {"none": (1.0, 0.0)}, "adaptive"), ax=ax),
        lambda ax: plots.accuracies(report(), ax=ax),
    ],
    ids=["waveforms", "spectrogram", "spectrum", "curve", "accuracies"],
)
def test_the_axes_passed_in_are_drawn_into_and_returned(draw):
    ax = subplots(1, 1)[0, 0]
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
        ((3, 3), lambda axes: plots.samples(report(images=True), axes=axes)),
        ((1, 10), lambda axes: plots.report(report(images=True), axes=axes)),
    ],
    ids=["contact_sheet", "before_after", "frame_strip", "spectra", "samples", "report"],
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
