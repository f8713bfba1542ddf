import numpy as np
import pytest

from preshield import plots
from preshield.plots import SheetColumn
from tests.plots.helpers import IMAGES, shown


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
    ],
)
def test_contact_sheets_refuse(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
