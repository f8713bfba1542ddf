import io

import numpy as np
import pytest

from preshield.plots import SheetColumn, contact_sheet

pytest.importorskip("matplotlib")


def test_contact_sheet():
    images = np.linspace(0, 1, 2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    figure = contact_sheet(
        [
            SheetColumn("Original", "", images, ["cat", "dog"], [True, False]),
            SheetColumn("Difference", "enlarged", images, ["0.1", "0.2"]),
        ],
        title="Two columns",
    )
    axes = np.array(figure.axes).reshape(2, 2)
    captions = [[ax.get_xlabel() for ax in row] for row in axes]
    assert captions == [["✓ cat", "0.1"], ["✗ dog", "0.2"]]
    right, wrong = axes[0, 0].xaxis.label.get_color(), axes[1, 0].xaxis.label.get_color()
    assert right != wrong
    assert axes[1, 0].spines["top"].get_edgecolor()[:3] != (0, 0, 0)
    assert [ax.get_title() for ax in axes[0]] == ["Original", "Difference"]
    np.testing.assert_array_equal(axes[1, 0].images[0].get_array(), images[1])
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")


def test_pyplot_is_not_used():
    import subprocess
    import sys

    code = (
        "import sys, numpy as np; from preshield.plots import *;"
        "contact_sheet([SheetColumn('a', '', np.zeros((1, 2, 2, 3)), ['x'], [True])]);"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
