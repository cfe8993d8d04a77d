"""What the jail's self-test found, in words for `laescan doctor` and for whoever is refused.

In: which walls stand, and which attempts at getting out were stopped. Out: `ok`, and a line for each.
One reason: nothing is believed that can be tried, and what was tried is told as it came out.
"""

from dataclasses import dataclass

from scanner.decoding.isolation import Walls


@dataclass(frozen=True)
class JailReport:
    """What the start-up self-test found, from inside a child; `ok` when nothing that it tried got through."""

    walls: Walls
    network_blocked: bool
    files_blocked: bool
    memory_blocked: bool
    processes_blocked: bool

    @property
    def ok(self) -> bool:
        """Whether a decoder that is broken into reaches nothing here."""
        return self.network_blocked and self.files_blocked and self.memory_blocked and self.processes_blocked

    @property
    def words(self) -> tuple[str, ...]:
        """One line per wall and per attempt, for `laescan doctor`."""
        walls = {
            "own network, IPC and mount namespaces": self.walls.network_namespace,
            "own user namespace": self.walls.user_namespace,
            "empty root folder": self.walls.empty_root,
            "own process namespace per job": self.walls.process_namespace,
            "system-call filter": self.walls.seccomp,
        }
        tried = {
            "connect to loopback": self.network_blocked,
            "open a file": self.files_blocked,
            "allocate beyond the limit": self.memory_blocked,
            "start a process": self.processes_blocked,
        }
        return (
            *(f"{name}: {'yes' if there else 'no'}" for name, there in walls.items()),
            *(f"decoder tried to {name}: {'stopped' if held else 'GOT THROUGH'}" for name, held in tried.items()),
            *(
                ()
                if self.ok
                else ("decoders run with limits of memory, CPU and time only; allow user namespaces to isolate them",)
            ),
        )
