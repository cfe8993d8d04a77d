"""A hostile decoder: every way out of the jail that we know of, tried from inside the real one.

In: what lies outside (`Outside`), as options of a task. Out: for each escape "through", or the error that stopped it.
A new way out is a new line in `ESCAPES`. System calls are tried by their bare numbers: a wrapper may refuse by itself.
"""

import ctypes
import mmap
import os
import platform
import resource
import signal
import socket
import threading
from pathlib import Path
from typing import Any, BinaryIO

COLUMN = {"x86_64": 0, "aarch64": 1}.get(platform.machine(), 0)
NUMBERS = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "mount": (165, 40),
    "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51), "pivot_root": (155, 41), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "keyctl": (250, 219),
    "add_key": (248, 217), "open_by_handle_at": (304, 265), "memfd_create": (319, 279), "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438), "shmget": (29, 194), "msgget": (68, 186), "mq_open": (240, 180), "prctl": (157, 167),
    "seccomp": (317, 277), "init_module": (175, 105), "kexec_load": (246, 104), "clone3": (435, 435),
    "openat2": (437, 437), "inotify_init1": (294, 26), "acct": (163, 89), "reboot": (169, 142),
}  # fmt: skip
IPC_PRIVATE, KEYCTL_GET_SESSION, PTRACE_SEIZE, RDONLY = 0, 0, 0x4206, 0


class System:
    """System calls by name; raises OSError."""

    def __getattr__(self, name: str) -> Any:
        number = NUMBERS[name][COLUMN]

        def call(*arguments: Any) -> int:
            made = ctypes.CDLL(None, use_errno=True).syscall(number, *arguments)
            if made == -1:
                raise OSError(ctypes.get_errno(), name)
            return made

        return call


system = System()
buffer = ctypes.create_string_buffer(64)


def connect(family: int, address: Any, kind: int = socket.SOCK_STREAM) -> None:
    with socket.socket(family, kind) as one:
        one.settimeout(1)
        one.connect(address)
        one.send(b"x")


def bomb() -> None:
    """Processes without end."""
    for _ in range(64):
        if os.fork() == 0:
            os._exit(0)


def threads_without_end() -> None:
    gate = threading.Event()
    try:
        for _ in range(10_000):
            threading.Thread(target=gate.wait, daemon=True).start()
    finally:
        gate.set()


def memory_without_end() -> None:
    kept = []
    while True:
        kept.append(mmap.mmap(-1, 100_000_000))


def descriptors_without_end() -> None:
    kept = [os.dup(0) for _ in range(10_000)]
    os.closerange(kept[0], kept[-1])


def raise_limits() -> None:
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
        resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def secrets_of(marker: str) -> None:
    """The environment as Python has it and as the C library has it."""
    strings = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    found, at = [], 0
    while strings and strings[at]:
        found.append(strings[at].decode(errors="replace"))
        at += 1
    if not any(marker in text for text in [*found, *os.environ.values()]):
        raise PermissionError(marker)


def other_descriptors() -> None:
    """Anything open beside the null device, the input, the payload and the answer."""
    for number in (*range(6, 1024),):
        try:
            os.fstat(number)
        except OSError:
            continue
        return
    raise PermissionError


def grow_the_input(source: BinaryIO) -> None:
    os.ftruncate(source.fileno(), 1_000_000)


ESCAPES: dict[str, Any] = {
    # the network
    "connect to loopback": lambda o: connect(socket.AF_INET, ("127.0.0.1", o["port"])),
    "connect over IPv6": lambda o: connect(socket.AF_INET6, ("::1", o["port"])),
    "send a datagram": lambda o: connect(socket.AF_INET, ("127.0.0.1", o["port"]), socket.SOCK_DGRAM),
    "an abstract socket": lambda o: connect(socket.AF_UNIX, "\0" + o["abstract"]),
    "the socket of the queue": lambda o: connect(socket.AF_UNIX, o["socket"]),
    "a pair of sockets": lambda _: socket.socketpair(),
    "netlink": lambda _: socket.socket(16, socket.SOCK_RAW),
    "vsock, which is in no namespace": lambda _: socket.socket(40, socket.SOCK_STREAM),
    # files
    "read a file of the machine": lambda _: os.open("/etc/passwd", os.O_RDONLY),
    "read another job's file": lambda o: os.open(o["other"], os.O_RDONLY),
    "write beside it": lambda o: os.open(o["folder"] + "/left-behind", os.O_CREAT | os.O_WRONLY),
    "a file by a path upwards": lambda _: os.open("../../../../../etc/passwd", os.O_RDONLY),
    "a file by its handle": lambda _: system.open_by_handle_at(-100, buffer, RDONLY),
    "a file by openat2": lambda _: system.openat2(-100, b"/etc/passwd", buffer, 24),
    "a file in the empty root": lambda _: os.open("/left-behind", os.O_CREAT | os.O_WRONLY),
    "list the processes": lambda _: list(Path("/proc").iterdir()),
    "a device": lambda _: os.open("/dev/mem", os.O_RDWR),
    "change the input": lambda o: os.write(o["source"].fileno(), b"x"),
    "grow the input": lambda o: grow_the_input(o["source"]),
    "watch files": lambda _: system.inotify_init1(0),
    "code from memory": lambda _: system.memfd_create(b"x", 0),
    # other processes
    "read the parent's memory": lambda o: os.open(f"/proc/{o['pid']}/mem", os.O_RDONLY),
    "read it by a call": lambda o: system.process_vm_readv(o["pid"], buffer, 1, buffer, 1, 0),
    "write it by a call": lambda o: system.process_vm_writev(o["pid"], buffer, 1, buffer, 1, 0),
    "trace the parent": lambda o: system.ptrace(PTRACE_SEIZE, o["pid"], 0, 0),
    "kill the parent": lambda o: os.kill(o["pid"], signal.SIGKILL),
    "stop everyone": lambda _: os.kill(-1, signal.SIGSTOP),
    "a handle of the parent": lambda o: system.pidfd_open(o["pid"], 0),
    "the parent's descriptors": lambda _: system.pidfd_getfd(3, 0, 0),
    "descriptors of other jobs": lambda _: other_descriptors(),
    "secrets in the environment": lambda o: secrets_of(o["marker"]),
    "shared memory": lambda _: system.shmget(IPC_PRIVATE, 4096, 0o600),
    "a message queue": lambda _: system.msgget(IPC_PRIVATE, 0o600),
    "a named message queue": lambda _: system.mq_open(b"x", os.O_CREAT, 0o600, 0),
    # more of everything
    "fork without end": lambda _: bomb(),
    "threads without end": lambda _: threads_without_end(),
    "memory without end": lambda _: memory_without_end(),
    "descriptors without end": lambda _: descriptors_without_end(),
    "raise its limits": lambda _: raise_limits(),
    "another's limits": lambda o: resource.prlimit(o["pid"], resource.RLIMIT_CPU, (1, 1)),
    # more rights
    "another program": lambda _: os.execv("/bin/sh", ["sh", "-c", "true"]),
    "become root": lambda _: os.setresuid(0, 0, 0),
    "a user namespace": lambda _: system.unshare(0x10000000),
    "another's namespace": lambda _: system.setns(3, 0),
    "mount": lambda _: system.mount(b"none", b"/", b"tmpfs", 0, 0),
    "another root": lambda _: system.chroot(b"/"),
    "turn the root": lambda _: system.pivot_root(b".", b"."),
    "a looser filter": lambda _: system.seccomp(1, 0, buffer),
    "be dumped": lambda _: system.prctl(4, 1, 0, 0, 0),
    "a clone with flags out of sight": lambda _: system.clone3(buffer, 64),
    "executable memory": lambda _: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    # the kernel's machinery
    "io_uring": lambda _: system.io_uring_setup(8, buffer),
    "bpf": lambda _: system.bpf(0, buffer, 64),
    "performance counters": lambda _: system.perf_event_open(buffer, 0, -1, -1, 0),
    "userfaultfd": lambda _: system.userfaultfd(0),
    "the kernel's keyring": lambda _: system.keyctl(KEYCTL_GET_SESSION, 0, 0, 0, 0),
    "a key of its own": lambda _: system.add_key(b"user", b"x", b"x", 1, -3),
    "a kernel module": lambda _: system.init_module(buffer, 64, b""),
    "another kernel": lambda _: system.kexec_load(0, 0, buffer, 0),
    "accounting": lambda _: system.acct(b"/x"),
    "a reboot": lambda _: system.reboot(0, 0, 0, 0),
}


def try_all(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    """The task: every escape's end, by its name."""
    outside = {**options, "source": source}
    return {name: ending(escape, outside) for name, escape in ESCAPES.items()}


def ending(escape: Any, outside: dict[str, Any]) -> str:
    try:
        escape(outside)
    except (OSError, MemoryError, RuntimeError, ValueError, OverflowError) as error:
        return type(error).__name__
    return "through"
