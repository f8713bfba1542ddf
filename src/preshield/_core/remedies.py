"""What to pass in place of a batch that lacks axes, or has them in another order.

A remedy is an expression to paste, with a keyword if one is needed, and says what it is for. Which are
offered depends on what the shape can be: a few channels at one end, or the sides of a picture.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .layout import FEW_CHANNELS, LARGE, LAYOUTS, expected_layouts
from .typing import Shape

__all__ = ["Taken", "how_to_add_axes", "how_to_change_layout", "how_to_resize"]

CHANNELS_FIRST = ("NCHW", "NCFHW")  # what `channels_first` stands for


class Taken(NamedTuple):
    """How a defence reads its batches, and what a caller can say about it."""

    domains: tuple[str, ...]
    channels_first: bool | None = None
    layout: str | None = None
    keywords: tuple[str, ...] = ()

    @property
    def layouts(self) -> list[str]:
        """Layouts that it takes; all of its domains if the channels make no difference."""
        known = expected_layouts(self.domains, self.channels_first, self.layout).values()
        return [layout for layout in known if layout] or self.legal

    @property
    def legal(self) -> list[str]:
        """Layouts of its domains."""
        return [layout for domain in LAYOUTS if domain in self.domains for layout in LAYOUTS[domain]]

    @property
    def images(self) -> list[str]:
        """Layouts that it takes, if videos are not among them."""
        return [] if any("F" in layout for layout in self.legal) else self.layouts

    def setting(self, layout: str) -> str | None:
        """The keyword that makes it take another layout, if it has one."""
        by_flag = layout in CHANNELS_FIRST or layout in ("NHWC", "NFHWC")
        if self.layout is None and by_flag and "channels_first" in self.keywords:
            return f"channels_first={layout in CHANNELS_FIRST}"
        if "layout" not in self.keywords:
            return None
        conflict = self.channels_first and layout not in CHANNELS_FIRST
        return f"layout={layout!r}" + (" in place of channels_first=True" if conflict else "")


class Reading:
    """A batch, read as one of a layout that lacks some axes."""

    def __init__(self, shape: Shape, layout: str, lacking: str) -> None:
        self.layout = layout
        self.lacking = lacking
        self.sizes = dict(zip((axis for axis in layout if axis not in lacking), shape, strict=True))

    @property
    def purpose(self) -> str:
        """What the batch is then, with a number if there are several."""
        count, channels = self.sizes.get("N", 1), self.sizes.get("C")
        kind = "video" if "F" in self.sizes else "image"
        text = f"one {kind}" if count == 1 else f"{count} {kind}s"
        if channels is None:
            text = text.replace(kind, f"grey {kind}")
        elif channels not in FEW_CHANNELS:
            text += f" with {channels} channels"
        return text + (" to be taken as a video of one frame" if "F" in self.lacking else "")

    @property
    def expression(self) -> str:
        """What adds the axes to `x`."""
        index = ["None" if axis in self.lacking else ":" for axis in self.layout]
        if index[-1] == "None":  # the colons before it, which are all but a leading None
            return "x[None, ..., None]" if index[0] == "None" else "x[..., None]"
        while index[-1] == ":":
            index.pop()
        return f"x[{', '.join(index)}]"

    @property
    def has_few_channels(self) -> bool:
        """Whether it has pictures with as few channels as pictures have."""
        return self.sizes.get("C") in FEW_CHANNELS and self.is_possible

    @property
    def is_a_picture_elsewhere(self) -> bool:
        """Whether it has frames and a side of a picture, beside another side that is one of few channels."""
        sides = sorted((self.sizes["H"], self.sizes["W"]))
        return sides[0] in FEW_CHANNELS and min(sides[1], self.sizes.get("F", 0)) >= LARGE

    @property
    def is_possible(self) -> bool:
        """Whether it has pictures, with fewer channels than a side has pixels."""
        side = min(self.sizes["H"], self.sizes["W"])
        return side > max(FEW_CHANNELS) and self.sizes.get("C", 0) < side


def how_to_add_axes(shape: Shape, taken: Taken, name: str = "x") -> str:
    """The end of a message about a batch of images or videos with a wrong number of axes."""
    options: dict[str, list[str]] = {}  # expressions by what they are for
    for purpose, expression in _remedies(shape, taken):
        expression = re.sub(r"\bx\b", lambda _: name, expression)
        same = options.setdefault(purpose, [])
        if expression not in same:
            same.append(expression)
    offers = [f"{' or '.join(same)} for {purpose}" for purpose, same in options.items()]
    return f"; pass {', or '.join(offers)}" if offers else ""


def how_to_change_layout(taken: Taken, expected: str, found: Sequence[str], sample: str | None = None) -> str:
    """What to pass if a batch has one of the layouts `found`, for example "channels_first=True".

    `sample` is what a message calls a sample of its own shape, which has no axis N.
    """
    absent = "" if sample is None else "N"
    remedies = [
        taken.setting(layout)
        or _moved(sample or "x", layout.removeprefix(absent), expected.removeprefix(absent))
        for layout in found
    ]
    if len(found) == 1:
        return remedies[0]
    return " or ".join(f"{remedy} for {layout}" for remedy, layout in zip(remedies, found, strict=True))


def how_to_resize(shape: Shape, takes: Sequence[int | None]) -> str:
    """The end of a message about samples of `shape` for a model that takes another, if they can be images."""
    if len(shape) != 3 or len(takes) != 3:
        return ""
    if tuple(takes) == (*shape[1:], shape[0]):
        return "; pass np.moveaxis(x, 1, -1)"
    if tuple(takes) == (shape[2], *shape[:2]):
        return "; pass np.moveaxis(x, -1, 1)"
    first = takes[0] == shape[0] and takes[0] in FEW_CHANNELS
    sides = takes[1:] if first else takes[:2]
    if None in sides or not (first or (takes[2] == shape[2] and takes[2] in FEW_CHANNELS)):
        return ""
    layout = ", channels_first=True" if first else ""
    return f"; resize them, such as by preshield.ImageResize({sides[0]}, {sides[1]}{layout}).transform(x)"


def _moved(expression: str, layout: str, expected: str) -> str:
    return f"np.moveaxis({expression}, {layout.index('C')}, {expected.index('C')})"


def _remedies(shape: Shape, taken: Taken) -> Iterator[tuple[str, str]]:
    """What a batch may be, and what to pass then."""
    whole = [layout for layout in taken.legal if len(layout) == len(shape)]
    if taken.layout is not None:
        for layout in whole:
            if Reading(shape[1:], layout, "N").has_few_channels and (setting := taken.setting(layout)):
                yield ("videos" if "F" in layout else "images"), f"x with {setting}"
    if len(shape) == 5 and any(Reading(shape[2:], image, "N").has_few_channels for image in taken.images):
        yield "videos, to take each frame as an image", "x.reshape(-1, *x.shape[2:])"
    for ways in (("N", "C", "F"), ("NC", "NF")):
        length = len(shape) + len(ways[0])
        if any(len(layout) == length for layout in taken.layouts):
            yield from _with_axes(shape, ways, length, taken)
            break
    if len(shape) == 2:
        for layout in (layout for layout in taken.layouts if "F" not in layout):
            sizes = ", ".join({"H": "height", "W": "width", "C": "channels"}[axis] for axis in layout[1:])
            yield "flattened images", f"x.reshape(len(x), {sizes})"


def _with_axes(shape: Shape, ways: tuple[str, ...], length: int, taken: Taken) -> Iterator[tuple[str, str]]:
    """What it may be if one of these sets of axes is missing."""
    readings = [
        Reading(shape, layout, lacking)
        for layout in taken.legal
        for lacking in ways
        if len(layout) == length and set(lacking) <= set(layout)
    ]
    known = [reading for reading in readings if reading.layout in taken.layouts]
    sure = [reading for reading in known if reading.has_few_channels]
    possible = [r for r in known if r not in sure and "F" not in r.lacking and r.is_possible]
    elsewhere = [r for r in readings if r not in known and r.lacking == "N" and r.has_few_channels]
    for reading in sure + possible:
        yield reading.purpose, reading.expression
    for reading in elsewhere:
        setting = taken.setting(reading.layout)
        moved = _moved("x[None]", reading.layout, known[0].layout)
        yield reading.purpose, f"x[None] with {setting}" if setting else moved
    if not (sure or possible or elsewhere):  # small pictures: whatever is missing
        for reading in known:
            if "F" not in reading.lacking and not reading.is_a_picture_elsewhere:
                yield reading.purpose, reading.expression
