"""The ffmpeg program that imageio-ffmpeg brings along, for the second engines."""

import subprocess

from .._core.optional import require
from .errors import CodecError

__all__ = ["executable", "run"]

LAST_LINES = 5  # of what ffmpeg says, in an error


def executable() -> str:
    """Path of the program; the environment variable `IMAGEIO_FFMPEG_EXE` names another one."""
    path: str = require("imageio_ffmpeg", extra="ffmpeg").get_ffmpeg_exe()
    return path


def run(*arguments: str, timeout: float) -> None:
    """Run ffmpeg to its end.

    Parameters
    ----------
    *arguments : str
        Inputs, outputs and their options.
    timeout : float
        Seconds after which the process is ended.

    Raises
    ------
    TimeoutError
        If it takes too long.
    CodecError
        A ValueError: if it fails; with the last lines of what it said.
    """
    command = [executable(), "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *arguments]
    try:
        done = subprocess.run(  # noqa: S603  # it ends the process when anything is raised
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(
            f"ffmpeg ({command[0]}) did not finish within {timeout:.3g} seconds; "
            'engine="pyav" needs no other process.'
        ) from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()[-LAST_LINES:]
        raise CodecError(
            f"ffmpeg ({command[0]}) failed with exit code {done.returncode}: "
            + ("; ".join(lines) or "it said nothing")
            + "."
        )
