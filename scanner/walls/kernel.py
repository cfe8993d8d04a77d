"""The Linux calls behind every wall, which have no wrapper in the standard library of Python 3.11.

In: what is wanted of the kernel. Out: it is done, or OSError with the errno of the call.
One reason: the decoder's jail and the page's both need them, and a wrong flag shows only when somebody breaks out.

Sources: unshare(2), mount(2), mount_setattr(2), pivot_root(2) NOTES, prctl(2), capset(2), seccomp(2).
"""

import ctypes
import errno
import os
import platform
import select
from collections.abc import Iterable
from pathlib import Path

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
SAFE_MOUNT = 2 | 4 | 8  # no suid, no devices, no programs; the same bits in mount(2) and in mount_setattr(2)
SIGKILL = 9
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE, _DETACH = 1, 32, 4096, 0x4000, 0x40000, 2
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000  # Linux 5.12, on all machines
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_SECCOMP, _SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong)
libc.capset.argtypes = (ctypes.c_void_p, ctypes.c_void_p)

# Made once, before any fork: to look a function up and to make a type of array cost each child 0.5 core-ms.
_CAPABILITIES = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
_NO_CAPABILITIES = (ctypes.c_uint32 * 6)()


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns"))


def call(name: str, *arguments: object) -> None:
    """Call libc; raises OSError with the errno of the call."""
    if getattr(libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def unshare(spaces: int) -> None:
    """Leave these namespaces; in a new user namespace we stay who we are. Raises OSError where it is forbidden."""
    uid, gid = os.geteuid(), os.getegid()
    call("unshare", spaces)
    if spaces & NEWUSER:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1", encoding="ascii")


def become_first() -> None:
    """Go on as the first process of the process namespace just made; the old process only waits, and takes us along.

    Only in a process namespace of its own may an unprivileged process make further ones; and whatever is in it sees
    nobody outside, and dies with its first.
    """
    outer = os.pidfd_open(os.getpid())
    pid = os.fork()
    if pid != 0:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.waitpid(pid, 0)
        os._exit(0)
    die_with_parent()
    if is_dead(outer):
        os._exit(1)
    os.close(outer)


def is_dead(handle: int, *, wait_ms: int = 0) -> bool:
    """Whether the process behind a pidfd is gone: asked after PR_SET_PDEATHSIG, which tells of later deaths only."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(wait_ms))


def new_root(place: bytes, *, readable: Iterable[str] = (), writable: Iterable[str] = ()) -> None:
    """Make `/` a read-only tmpfs in which only these folders are, under the paths that they had; raises OSError.

    What is not open by now and not in them cannot be opened any more. `place` is any folder: it is covered in our own
    mount namespace only. What is `readable` may be mapped as code, what is `writable` may not.
    """
    call("mount", b"none", b"/", None, ctypes.c_ulong(_RECURSIVE | _PRIVATE), None)
    kept = [
        (os.open(path, os.O_PATH | os.O_DIRECTORY), path, is_writable)
        for path, is_writable in _outermost(readable, writable)
    ]
    call("mount", b"tmpfs", place, b"tmpfs", ctypes.c_ulong(SAFE_MOUNT), b"size=256k,mode=555")
    os.chdir(place)
    for source, path, is_writable in kept:
        _keep(source, f".{path}", is_writable=is_writable)
        os.close(source)
    try:
        call("syscall", _PIVOT_ROOT.get(platform.machine(), -1), b".", b".")
        call("umount2", b".", _DETACH)
    except OSError:  # the root of an initramfs cannot be pivoted
        os.chroot(".")
    os.chdir("/")
    call("mount", None, b"/", None, ctypes.c_ulong(_REMOUNT | _READ_ONLY | SAFE_MOUNT), None)


def _outermost(readable: Iterable[str], writable: Iterable[str]) -> Iterable[tuple[str, bool]]:
    """Each folder once, not those inside another one that is kept in the same way."""
    for is_writable, paths in ((False, readable), (True, writable)):
        last = None
        for path in sorted(str(Path(path).absolute()) + "/" for path in paths):
            if last is None or not path.startswith(last):
                yield path.rstrip("/"), is_writable
                last = path


def _keep(source: int, target: str, *, is_writable: bool) -> None:
    """Bind an open folder to a path in the new root; a writable one without what is mounted over it, maybe by us."""
    Path(target).mkdir(parents=True, exist_ok=True)
    how = ctypes.c_ulong(_BIND if is_writable else _BIND | _RECURSIVE)
    call("mount", f"/proc/self/fd/{source}".encode(), os.fsencode(target), None, how, None)
    wished = _MountAttributes(SAFE_MOUNT if is_writable else _READ_ONLY | 2 | 4, 0, 0, 0)
    size = ctypes.c_size_t(ctypes.sizeof(wished))
    call("syscall", _MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), _AT_RECURSIVE, ctypes.byref(wished), size)


def _prctl(option: int, value: int, pointer: object = None) -> None:
    call("prctl", option, value, pointer, 0, 0)


def die_with_parent() -> None:
    """Ask to be killed when the parent thread ends; a change of user or of namespace undoes it."""
    _prctl(_SET_PDEATHSIG, SIGKILL)


def renounce() -> None:
    """Keep no capability, gain none by any program, and let nobody of this user look in."""
    try:
        call("capset", _CAPABILITIES, _NO_CAPABILITIES)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
    _prctl(_SET_DUMPABLE, 0)
    _prctl(_SET_NO_NEW_PRIVS, 1)


def filter_calls(code: bytes) -> None:
    """Put a filter of system calls on this thread and all that it starts; `renounce` comes first."""
    program = _Program(len(code) // 8, code)
    _prctl(_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program))
