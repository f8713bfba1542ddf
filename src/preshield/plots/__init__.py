"""Pictures of arrays and of the records of an evaluation; they need the extra ``plots``.

Every function takes Matplotlib axes, draws into them and returns them: `ax` where it draws one plot, `axes`
where it draws several. Without axes it makes a figure; ``ax.figure.savefig(path)`` writes it, `png` turns it
into bytes.

In a notebook that figure belongs to pyplot, which shows it below the cell, once, and then closes it.
Elsewhere pyplot does not know the figure: a script or a server that draws thousands of them leaves none open.
To see a window, bring axes from pyplot::

    figure, ax = plt.subplots()
    plots.curve(report.curves[0], ax=ax)
    plt.show()
"""

from .certified import certified_accuracy
from .charts import accuracies, curve, roc
from .comparisons import before_after, difference_column
from .figures import png
from .fourier import spectra, spectrum
from .images import SheetColumn, contact_sheet
from .report_samples import samples
from .reports import report
from .signals import spectrogram, waveforms
from .videos import frame_strip
from .votes import votes

__all__ = [
    "SheetColumn",
    "accuracies",
    "before_after",
    "certified_accuracy",
    "contact_sheet",
    "curve",
    "difference_column",
    "frame_strip",
    "png",
    "report",
    "roc",
    "samples",
    "spectra",
    "spectrogram",
    "spectrum",
    "votes",
    "waveforms",
]
