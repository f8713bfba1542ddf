"""The one error of the codecs."""

import av
import pytest

from preshield.codecs.errors import CodecError, coding


@pytest.mark.parametrize(
    "kind", [av.error.InvalidDataError, av.error.MemoryError, UnicodeDecodeError, AttributeError]
)
def test_whatever_a_library_raises_is_a_codec_error(kind):
    cause = kind.__new__(kind)
    with pytest.raises(CodecError, match=r"^`data` is cut\.$") as caught, coding("`data` is cut."):
        raise cause
    assert isinstance(caught.value, ValueError)
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize("kind", [MemoryError, TimeoutError, KeyboardInterrupt, CodecError])
def test_what_is_no_fault_of_the_data_passes(kind):
    with pytest.raises(kind, match=r"^itself$"), coding("another message"):
        raise kind("itself")
