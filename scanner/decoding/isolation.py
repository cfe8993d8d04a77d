"""What a process gives up before it touches a stranger's bytes: network, files, privileges, memory, time.

In: nothing but the running process. Out: `enter_walls()` for the fork server, `lock_down()` for each of its children.
One reason: the order of these steps decides whether they hold, and it is read here, apart from what is done in them.

Sources: namespaces(7), user_namespaces(7), setrlimit(2); the calls themselves are in `scanner.walls.kernel`.
"""

import contextlib
import ctypes
import os
import resource
from pathlib import Path

import msgspec

from scanner.walls import kernel
from scanner.walls.seccomp import filter_program

_SPACES = kernel.NEWNS | kernel.NEWUTS | kernel.NEWIPC | kernel.NEWNET | kernel.NEWPID
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432  # Linux 5.2, on all machines
_FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE, _CLOEXEC = 1, 6, 1
_NOBODY = 65534
_MAX_THREADS = 256  # of one user, all jobs together where the children are nobody; a bomb also meets the memory limit
_MAX_OPEN_FILES = 16  # 0, 1, 2, the input, the payload, the answer, and a few copies

_filter = filter_program()


class Walls(msgspec.Struct, frozen=True):
    """Which walls stand around the decoder on this machine."""

    user_namespace: bool = False
    """False also where the server is root: root needs none, and its children become nobody."""
    network_namespace: bool = False
    empty_root: bool = False
    process_namespace: bool = False
    seccomp: bool = False


class Limits(msgspec.Struct, frozen=True):
    """What one child may use; address space and payload in bytes, CPU in seconds."""

    memory_bytes: int
    payload_bytes: int
    cpu_s: int


def enter_walls() -> tuple[Walls, int | None]:
    """Leave the network, the files and the host's other resources behind, as far as this machine lets us.

    Out: the walls that stand, and a descriptor of our own process namespace (None: children get none of their own).
    Irreversible; call it once, single-threaded, after everything that will ever be imported is imported.
    """
    with_user = _unshare()
    if with_user is not None:
        kernel.become_first()
    own_pid_space = _own_pid_space()
    empty_root = with_user is not None and _empty_root()
    walls = Walls(
        user_namespace=bool(with_user),
        network_namespace=with_user is not None,
        empty_root=empty_root,
        process_namespace=own_pid_space is not None,
        seccomp=_filter is not None,
    )
    return walls, own_pid_space


def _unshare() -> bool | None:
    """New network, mount, process and IPC spaces; True = by a user namespace, False = as root, None = forbidden."""
    for user in (0, kernel.NEWUSER) if os.geteuid() == 0 else (kernel.NEWUSER,):
        with contextlib.suppress(OSError):
            kernel.unshare(_SPACES | user)
            return bool(user)
    return None


def _empty_root() -> bool:
    """Make `/` an empty read-only tmpfs: what is not open by now cannot be opened any more."""
    try:
        kernel.new_root(os.fsencode(Path(os.__file__).parent))
    except OSError:
        return False
    return True


def huge_folder() -> int | None:
    """A folder in memory whose files lie in huge pages, mounted nowhere and gone with its last descriptor.

    None where this kernel, or what it lets us do, has none. Ask after `enter_walls`, which gives the right to mount.
    Measured for 3 MB written by one process and read by another: 2.5 core-ms, in a memfd 4.0.
    """
    try:
        plan = _descriptor(_FSOPEN, b"tmpfs", _CLOEXEC)
    except OSError:
        return None
    try:
        for key, value in ((b"huge", b"within_size"), (b"size", b"0"), (b"mode", b"700")):  # 0: limited per file
            kernel.call("syscall", _FSCONFIG, plan, _FSCONFIG_SET_STRING, key, value, 0)
        kernel.call("syscall", _FSCONFIG, plan, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _descriptor(_FSMOUNT, plan, _CLOEXEC, kernel.SAFE_MOUNT)
    except OSError:
        return None
    finally:
        os.close(plan)


def _descriptor(*arguments: object) -> int:
    """What a system call opens; raises OSError."""
    descriptor: int = kernel.libc.syscall(*arguments)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "syscall")
    return descriptor


def _own_pid_space() -> int | None:
    """A descriptor of our process namespace; None when children cannot get one of their own."""
    try:
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        next_child_beside(own)  # first: what cannot be undone must not be done
        next_child_alone(own)
        next_child_beside(own)
    except OSError:
        os.close(own)
        return None
    return own


def next_child_alone(own_pid_space: int | None) -> None:
    """Make the next fork the first process of a space of its own: it sees nobody, and its brood dies with it."""
    if own_pid_space is not None:
        kernel.call("unshare", kernel.NEWPID)


def next_child_beside(own_pid_space: int | None) -> None:
    """Undo `next_child_alone` after the fork, so that it can be asked for again."""
    if own_pid_space is not None:
        kernel.call("setns", own_pid_space, kernel.NEWPID)


def lock_down(limits: Limits) -> None:
    """Give up privileges, set the limits, then the system-call filter; only for a forked child, and for good."""
    if os.getuid() == 0:
        with contextlib.suppress(OSError):  # in a user namespace that maps root alone there is nobody to become
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    kernel.renounce()
    kernel.die_with_parent()  # after the change of user, which clears it
    _set_limits(limits)
    if _filter is not None:
        kernel.filter_calls(_filter)


def _set_limits(limits: Limits) -> None:
    """Hard limits too, so that the child cannot raise them; the CPU limit's second signal is the one that kills."""
    for kind, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES, _MAX_OPEN_FILES),
        (resource.RLIMIT_FSIZE, limits.payload_bytes, limits.payload_bytes),
        (resource.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + 1),
        (resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
        (resource.RLIMIT_NPROC, _MAX_THREADS, _MAX_THREADS),
    ):
        _, ceiling = resource.getrlimit(kind)
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)  # noqa: PLW2901 - the host is stricter than we
        resource.setrlimit(kind, (soft, hard))
