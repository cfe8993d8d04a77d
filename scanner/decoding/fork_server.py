"""The parent's hold on one fork server: started, talked to on its socket, killed.

In: the tasks that it shall run. Out: a `ForkServer` whose walls stand and whose socket takes jobs, or NoJail.
One reason: a server may die, hang, or be a forked parent's; what has to be done then is the same wherever it is seen.
The server itself is `scanner.decoding.jailer`; who sends it jobs is `scanner.decoding.jail`.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import msgspec

from scanner.decoding.isolation import Walls
from scanner.decoding.jailer import MESSAGE_BYTES, Ready
from scanner.errors import NoJail

SERVER_MODULE = "scanner.decoding.jailer"
START_TIMEOUT_S = 30.0  # imports 0.4 s warm; a cold disk is slower
KEPT_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "LC_ALL": "C.UTF-8",
    "PYTHONSAFEPATH": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",  # large blocks in huge pages: a quarter fewer faults in Pillow's jobs
}


@dataclass(frozen=True)
class ForkServer:
    """One running server, as its parent holds it: `start` makes it, `stop` ends it."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    walls: Walls
    owner_pid: int
    folder: int | None = None  # for payloads; see isolation.huge_folder

    @property
    def is_ours(self) -> bool:
        """Alive, and not our parent's: a forked copy of us must not talk on our parent's socket."""
        return self.owner_pid == os.getpid() and self.process.poll() is None

    @classmethod
    def start(cls, tasks: Mapping[str, str]) -> Self:
        """Start a fork server and wait until it has imported everything and shut itself in; raises NoJail."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        errors = os.memfd_create("laescan-jailer-errors")
        environment = {**KEPT_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        named = [f"{name}={target}" for name, target in tasks.items()]
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", SERVER_MODULE, str(theirs.fileno()), *named],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a Ctrl-C in the terminal is for the parent
            )
            theirs.close()
            ours.settimeout(START_TIMEOUT_S)
            try:
                data, folders, _, _ = socket.recv_fds(ours, MESSAGE_BYTES, 1)
            except TimeoutError:
                data, folders = b"", []
            ours.settimeout(None)
            if not data:
                cls(process, ours, Walls(), os.getpid()).stop()
                words = os.pread(errors, 4000, max(0, os.fstat(errors).st_size - 4000)).decode(errors="replace")
                msg = f"the decoder's fork server did not start: {words.strip() or 'no word from it'}"
                raise NoJail(msg)
        finally:
            os.close(errors)
        walls = msgspec.msgpack.decode(data, type=Ready).walls
        return cls(process, ours, walls, os.getpid(), folders[0] if folders else None)

    def stop(self) -> None:
        """Close its socket, kill it, bury it; its children are killed by the kernel with it."""
        self.control.close()
        if self.folder is not None:
            os.close(self.folder)
        if self.owner_pid == os.getpid():
            self.process.kill()
            self.process.wait()
