"""The message for an unexpected error."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path

from anyrec.core.secrets import redacted

DEBUG = "ANYREC_DEBUG"
"""Environment variable that shows the traceback."""


def internal_error(error: Exception, arguments: Sequence[str]) -> str:
    """Return one line with the command, the error and its place in the code, and how to see the traceback.

    Args:
        error: The exception.
        arguments: The command line, program name first.
    """
    package = Path(__file__).parent.parent
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if package in Path(frame.filename).parents]
    place = f" ({Path(frames[-1].filename).relative_to(package.parent)}:{frames[-1].lineno})" if frames else ""
    named = [argument for argument in arguments[1:2] if not argument.startswith("-")]
    command = " ".join([Path(arguments[0]).name, *named])
    message = " ".join(redacted(str(error)).split())
    what = f"{type(error).__name__}: {message[:200]}" if message else type(error).__name__
    return f"{command} failed by an error in the program: {what}{place}. {DEBUG}=1 shows the traceback."
