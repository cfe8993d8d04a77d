"""Which system calls a jailed process may make: a decoder next to none, yt-dlp's none that starts or reaches others.

In: nothing. Out: `filter_program()` and `page_filter()`, BPF for prctl(PR_SET_SECCOMP); None on other kinds of machine.
One reason: a list of what decoding needs stays right when a kernel gains calls; a list of what is bad does not. Nobody
has a list of what yt-dlp needs, so its filter is of the second kind and stands behind namespaces, not instead of them.

A call that is not allowed fails with EPERM instead of killing: codec libraries probe for what the machine has, and live
with a refusal. Newer calls fail with ENOSYS, which is what libraries fall back from (glibc's clone3 among them).
"""

import errno
import platform
import struct
import sys

# Names in the order of the two number columns: x86-64, then AArch64 (asm-generic); None = not a call of that machine.
_ALLOWED: dict[str, tuple[int, int | None]] = {
    # open descriptors
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "newfstatat": (262, 79),  # how glibc 2.33+ spells fstat; paths lead nowhere in an empty root
    "lseek": (8, 62),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "ftruncate": (77, 46),
    "fadvise64": (221, 223),
    "fcntl": (72, 25),
    "dup": (32, 23),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    # memory
    "munmap": (11, 215),
    "mremap": (25, 216),
    "brk": (12, 214),
    "madvise": (28, 233),
    "membarrier": (324, 283),
    # signals and threads of its own
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "set_tid_address": (218, 96),
    "rseq": (334, 293),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # who and when
    "gettid": (186, 178),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getcpu": (309, 168),
    "getrandom": (318, 278),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "uname": (63, 160),
    "sysinfo": (99, 179),
}
_MMAP, _MPROTECT = (9, 222), (10, 226)  # allowed unless the pages are to be executable: no code is brought in
_CLONE, _PRLIMIT = (56, 220), (302, 261)  # a thread, never a process; of itself, never of another
_FIRST_UNKNOWN = 424  # pidfd_send_signal (Linux 5.1), from where on all machines number alike

# What no page may have done: other programs, other processes, other namespaces, the kernel's own machinery; and in its
# folder anything but plain files of ours, since we have to look into it and to empty it.
_DENIED_TO_PAGES: dict[str, tuple[int | None, int | None]] = {
    "execve": (59, 221),  # no ffmpeg, curl or aria2c, wherever one lies
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "kexec_load": (246, 104),
    "quotactl": (179, 60),
    "mkdir": (83, None),
    "mkdirat": (258, 34),  # folders in folders without end
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "link": (86, None),
    "linkat": (265, 37),
    "mknod": (133, None),
    "mknodat": (259, 33),  # a pipe, on which a reader waits
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "setxattr": (188, 5),  # an access list is a chmod, too
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "clone3": (435, 435),  # takes its flags where no filter sees them; glibc falls back to clone
}
_SOCKET, _PRCTL = (41, 198), (157, 167)
_SET_PDEATHSIG = 1  # whoever unset it would outlive us
_FAMILIES = (1, 2, 10)  # Unix, IPv4, IPv6: of a network namespace; not vsock, which is the machine's whatever namespace
_NEW_SPACES = 0x7E020000  # CLONE_NEW*: of processes that clone() makes

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column, AUDIT_ARCH_*
_X32_BIT = 0x40000000

# Operations as in linux/bpf_common.h, answers as in linux/seccomp.h
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; low words, both machines are little-endian
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000
_PROT_EXEC, _CLONE_THREAD = 0x4, 0x10000


def _op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One BPF instruction: jump `yes` or `no` instructions ahead after a comparison with `value`."""
    return struct.pack("=HBBI", code, yes, no, value)


def _if_argument(number: int, argument: int, test: tuple[int, int], *, allow_on: bool) -> bytes:
    """Allow call `number` when `test` (operation, value) of one argument comes out as `allow_on`, else EPERM."""
    allow, refuse = _op(_RETURN, _ALLOW), _op(_RETURN, _FAIL | errno.EPERM)
    load = _op(_LOAD, _ARGUMENTS + 8 * argument)
    return _op(_EQUAL, number, 0, 4) + load + _op(*test, 0, 1) + (allow + refuse if allow_on else refuse + allow)


def filter_program(machine: str | None = None) -> bytes | None:
    """The filter as an array of `struct sock_filter`; None when this machine's call numbers are not known here."""
    machine = machine or platform.machine()
    if machine not in _MACHINES or sys.byteorder != "little":
        return None
    column, _ = _MACHINES[machine]
    code = [_prologue(machine)]
    for numbers in _ALLOWED.values():
        if (number := numbers[column]) is not None:
            code += [_op(_EQUAL, number, 0, 1), _op(_RETURN, _ALLOW)]
    code += [
        _if_argument(_MMAP[column], 2, (_ANY_BIT, _PROT_EXEC), allow_on=False),
        _if_argument(_MPROTECT[column], 2, (_ANY_BIT, _PROT_EXEC), allow_on=False),
        _if_argument(_CLONE[column], 0, (_ANY_BIT, _CLONE_THREAD), allow_on=True),
        _if_argument(_PRLIMIT[column], 0, (_EQUAL, 0), allow_on=True),
        _op(_AT_LEAST, _FIRST_UNKNOWN, 0, 1),
        _op(_RETURN, _FAIL | errno.ENOSYS),
        _op(_RETURN, _FAIL | errno.EPERM),
    ]
    return b"".join(code)


def page_filter(machine: str | None = None) -> bytes | None:
    """The filter of yt-dlp's process, in the same form: everything but what is denied to pages."""
    machine = machine or platform.machine()
    if machine not in _MACHINES or sys.byteorder != "little":
        return None
    column, _ = _MACHINES[machine]
    code = [_prologue(machine)]
    for name, numbers in _DENIED_TO_PAGES.items():
        refusal = errno.ENOSYS if name == "clone3" else errno.EPERM
        if (number := numbers[column]) is not None:
            code += [_op(_EQUAL, number, 0, 1), _op(_RETURN, _FAIL | refusal)]
    code += [
        _if_argument(_CLONE[column], 0, (_ANY_BIT, _NEW_SPACES), allow_on=False),
        _if_argument(_PRCTL[column], 0, (_EQUAL, _SET_PDEATHSIG), allow_on=False),
        _op(_EQUAL, _SOCKET[column], 0, 2 + len(_FAMILIES)),
        _op(_LOAD, _ARGUMENTS),
        *(_op(_EQUAL, family, len(_FAMILIES) - at, 0) for at, family in enumerate(_FAMILIES)),
        _op(_RETURN, _FAIL | errno.EPERM),
        _op(_RETURN, _ALLOW),
    ]
    return b"".join(code)


def _prologue(machine: str) -> bytes:
    """Kill who calls by the numbers of another machine, and load the number of the call."""
    code = _op(_LOAD, _ARCH) + _op(_EQUAL, _MACHINES[machine][1], 1, 0) + _op(_RETURN, _KILL) + _op(_LOAD, _NUMBER)
    if machine == "x86_64":  # the same calls under other numbers
        code += _op(_AT_LEAST, _X32_BIT, 0, 1) + _op(_RETURN, _KILL)
    return code
