"""The machine as engines see it: the device, its driver, the versions of what runs on it.

One reason: every field of a manifest that must fit is read in one place, when an engine is built and when it is loaded.
"""

import platform
import re
from pathlib import Path

import torch

from trt_engines.manifest import Machine

_DRIVER = Path("/proc/driver/nvidia/version")


def this_machine(versions: dict[str, str], device: str) -> Machine:
    """What is here now; `versions` are the compiler's own, `device` is "cuda" or "cpu"."""
    found = {"torch": str(torch.__version__), "cuda": str(torch.version.cuda), **versions}
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        name = torch.cuda.get_device_name()
        return Machine(device=name, capability=f"{major}.{minor}", driver=_driver(), versions=found)
    return Machine(device=cpu_name(), capability="", driver="", versions=found)


def cpu_name() -> str:
    """The processor's model and its widest vector unit: compiled code differs between those."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return f"{model[1] if model else platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def _driver() -> str:
    """e.g. 580.95.05, as the kernel module tells; a container without its file has one driver all its life."""
    text = _DRIVER.read_text(encoding="utf-8") if _DRIVER.is_file() else ""
    found = re.search(r"\b\d{3}\.\d+(?:\.\d+)?\b", text)
    return found[0] if found else "unknown"
