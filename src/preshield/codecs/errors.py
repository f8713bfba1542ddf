"""The error of the codecs."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["CodecError", "coding"]


class CodecError(ValueError):
    """Data that a codec cannot encode or decode; `__cause__` is what the library behind it raised."""


@contextmanager
def coding(message: str) -> Iterator[None]:
    """Raise what a library raises as a `CodecError` with this message.

    Damaged data make PyAV raise errors of FFmpeg, and where it meets what it does not expect, such as a name
    that is not UTF-8 or a frame without a format, any other. A lack of memory, of time or of disk space is no
    fault of the data, and passes.
    """
    try:
        yield
    except (CodecError, TimeoutError):
        raise
    except Exception as error:
        if type(error) is MemoryError:  # and not PyAV's, of sizes that damaged data announce
            raise
        if type(error) is OSError and error.errno is not None:  # and not Pillow's, which have no number
            raise
        raise CodecError(message) from error
