"""The one error of the codecs."""

import av
import pytest

from preshield.codecs.errors import CodecError, coding


@pytest.mark.parametrize(
    "cause",
    [
        av.error.InvalidDataError(1094995529, "Invalid data found when processing input"),
        av.error.MemoryError(12, "Cannot allocate memory"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        AttributeError("'NoneType' object has no attribute 'name'"),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_whatever_a_library_raises_is_a_codec_error(cause):
    with pytest.raises(CodecError, match=r"^`data` is cut\.$") as caught, coding("`data` is cut."):
        raise cause
    assert isinstance(caught.value, ValueError)
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("kind", [MemoryError, TimeoutError, KeyboardInterrupt, CodecError])
def test_what_is_no_fault_of_the_data_passes(kind):
    with pytest.raises(kind, match=r"^itself$"), coding("another message"):
        raise kind("itself")


def test_a_disk_that_fails_is_no_fault_of_the_data():
    with pytest.raises(OSError, match="full"), coding("another message"):
        raise OSError(28, "full")
    with pytest.raises(CodecError, match="another message"), coding("another message"):
        raise OSError("encoder error -2 when writing image file")  # as Pillow's, of an image
