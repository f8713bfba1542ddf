"""Files that FFmpeg writes, whole or not at all."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import IO, Any

from .errors import coding

__all__ = ["container_into"]


@contextmanager
def container_into(
    file: IO[bytes], name: str, refused: str, options: Mapping[str, str] | None = None
) -> Iterator[Any]:
    """Open a container, and end its streams and itself after the block.

    Parameters
    ----------
    file : file object
        Can be written, and sought where the format asks for it.
    name : str
        Of the format, as FFmpeg calls it.
    refused : str
        Message of the `CodecError` if FFmpeg refuses it.
    options : mapping of str to str, optional
        Of the muxer.

    Yields
    ------
    av.container.OutputContainer
        What the block raises passes as it is.
    """
    import av

    with coding(refused):
        output = av.open(file, "w", format=name, options=dict(options or {}))
    try:
        yield output
        with coding(refused):
            for stream in output.streams:
                output.mux(stream.encode(None))
            output.close()
    except BaseException:
        with suppress(Exception):  # the end of a file that nobody will read
            output.close()
        raise
