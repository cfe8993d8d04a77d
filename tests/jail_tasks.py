"""What a broken-into decoder might try; run as tasks of a jail that only tests allow."""

import ctypes
import mmap
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from scanner.errors import TooManyPixels


def attempt(what: Any) -> str:
    try:
        what()
    except (OSError, MemoryError, RuntimeError) as error:
        return type(error).__name__
    return "through"


def echo(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    data = source.read()
    payload.write(data)
    return {"size": len(data), **options}


def refuse(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    raise TooManyPixels(options["words"])


def stumble(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    return {"never": options["no such key"]}


def snoop(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    """Everything at once that must fail by itself; each attempt's outcome by name."""
    pid, port, path, folder = options["pid"], options["port"], options["path"], options["folder"]
    tries = {
        "connect": lambda: socket.create_connection(("127.0.0.1", port), timeout=1),
        "datagram": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port)),
        "abstract socket": lambda: socket.socket(socket.AF_UNIX).connect("\0laescan-test"),
        "read a file": lambda: os.open(path, os.O_RDONLY),
        "write a file": lambda: os.open(f"{folder}/left-behind", os.O_CREAT | os.O_WRONLY),
        "list a folder": lambda: list(Path("/proc").iterdir()),
        "read the parent's memory": lambda: os.open(f"/proc/{pid}/mem", os.O_RDONLY),
        "write the input": lambda: os.write(source.fileno(), b"x"),
        "fork": os.fork,
        "kill the parent": lambda: os.kill(pid, signal.SIGKILL),
        "kill everyone": lambda: os.kill(-1, signal.SIGKILL),
        "execute": lambda: os.execv("/bin/true", ["true"]),
        "trace": lambda: _system_call(101, 16, pid, 0, 0),
        "mount": lambda: _system_call(165, 0, 0, 0, 0),
        "io_uring": lambda: _system_call(425, 8, 0, 0, 0),
        "bpf": lambda: _system_call(321, 0, 0, 0, 0),
        "executable memory": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
        "become root": lambda: os.setresuid(0, 0, 0),
    }
    return {
        "tries": {name: attempt(what) for name, what in tries.items()},
        "environment": dict(os.environ),
        "descriptors": [number for number in range(256) if _is_open(number)],
        "user": os.getuid(),
    }


def _system_call(number: int, *arguments: int) -> None:
    if ctypes.CDLL(None, use_errno=True).syscall(number, *arguments) == -1:
        raise OSError(ctypes.get_errno(), "refused")


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def allocate(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    return {"size": len(bytearray(10_000_000_000))}


def nibble(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    """Memory a megabyte at a time, as a decoder would."""
    kept = []
    while True:
        kept.append(bytearray(b"x") * 1_000_000)


def sleep(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    time.sleep(options.get("seconds", 3600))
    return {}


def spin(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    """Deaf to every signal that can be ignored."""
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        attempt(lambda number=number: signal.signal(number, signal.SIG_IGN))
    while True:
        pass


def flood(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    """Two gigabytes into the payload."""
    block = b"x" * 1_000_000
    return {"written": sum(payload.write(block) for _ in range(2000))}


def crash(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    return {"address": ctypes.string_at(0)}


def threads(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    """As many threads as it gets; a decoder needs a few, a bomb gets no further than its limits."""
    gate = threading.Event()
    started = 0

    def more() -> None:
        nonlocal started
        while started < 10_000:
            threading.Thread(target=gate.wait, daemon=True).start()
            started += 1

    outcome = attempt(more)
    return {"started": started, "outcome": outcome}


def lie(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    """A decoder's answer with whatever the test wants in it."""
    payload.write(b"\0" * options["size"])
    return options["answer"]


def vanish(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    os._exit(0)


def scribble(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    """An answer that is no answer."""
    os.write(5, b"\xc1 not msgpack")
    os._exit(0)
