"""A compiler's name in, its module out, or one sentence that says why there is none.

One reason: these packages fail at import in their own ways. Measured without a GPU or its libraries: torch-tensorrt
raises a plain Exception, torch-tensorrt-rtx an AssertionError, past that an OSError; none of them an ImportError, and
some print first. No start-up may end there, so this is the one place that takes them all alike.
"""

import contextlib
import importlib
import importlib.util
import io
import logging
from types import ModuleType

from trt_engines.errors import NoCompiler

log = logging.getLogger(__name__)


def imported(name: str, install: str) -> ModuleType:
    """The module; raises NoCompiler, however it failed. `install` is what to type where it is missing."""
    if importlib.util.find_spec(name) is None:
        msg = f"{name} is not installed; {install}"
        raise NoCompiler(msg)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            return importlib.import_module(name)
    except Exception as error:  # whatever a foreign package's import may raise
        log.debug("importing %s failed; it said %r", name, said.getvalue(), exc_info=True)
        first = str(error).strip().partition("\n")[0]
        msg = f"{name} is installed but does not load here ({type(error).__name__}: {first})"
        raise NoCompiler(msg) from error
