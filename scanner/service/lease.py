"""A worker's hold on one scan: taken, renewed, written through, and given up or lost.

In: a queued row's id. Out: a `Lease`, the only thing that may write the row while nobody has taken it over.
One reason: whoever is killed, stopped or cut off must not write any more, and cannot be asked: the fence tells.

The API's half is `scanner.service.ledger`; the steps are in `ledger.lua`. Blocking, as rq is.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Self, cast

import msgspec
import redis
from redis.commands.core import Script

from scanner.contract import Outcome, QueueName, ScanRequest
from scanner.errors import Poisoned
from scanner.service.ledger import ROW, STEPS, acceptance, failure_outcome
from scanner.settings import Settings

LEASE_MS: Final = 15_000
"""A worker that has not renewed for so long is dead: four renewals that got lost, or one machine."""
LONGEST_DELAY_MS: Final = 60_000
"""No next try is further away than this; what seems to be was planned before the clock was set back."""
MOST_ATTEMPTS: Final = 3
"""A scan whose workers died this often is not tried again."""


@dataclass(frozen=True)
class Lease:
    """One attempt at one scan. Everything that writes answers False when the row is not ours any more.

    `request` is None only for a row taken over from a dead worker, which is given back, never scanned.
    """

    client: redis.Redis = field(repr=False)
    id: str
    fence: int
    attempt: int = 0
    waited_s: float = 0.0  # in the queue, since it was accepted or given back
    request: ScanRequest | None = None

    @classmethod
    def start(cls, client: redis.Redis, id_: str, *, owner: str) -> Self | None:
        """Take a queued row; None when it is not queued: ended, cancelled, or another worker's."""
        found = cast("list[bytes | int]", _step(client, "start", id_, owner, LEASE_MS))
        if not found:
            return None
        fence, attempt, encoded, waited_ms = found
        request = msgspec.json.decode(cast("bytes", encoded), type=ScanRequest)
        return cls(client, id_, int(fence), int(attempt), int(waited_ms) / 1000, request)

    @classmethod
    def take_expired(cls, client: redis.Redis, *, most: int) -> list[Self]:
        """Leases on rows whose worker has not renewed in time."""
        found = cast("list[bytes | int]", _step(client, "take_expired", most, LEASE_MS))
        pairs = zip(found[::2], found[1::2], strict=True)
        return [cls(client, cast("bytes", id_).decode(), int(fence)) for id_, fence in pairs]

    def renew(self) -> bool:
        """Hold it for another LEASE_MS."""
        return bool(_step(self.client, "renew", self.id, self.fence, LEASE_MS))

    def progress(self, stage: str, percent: float | None) -> bool:
        """Tell how far it is."""
        shown = "" if percent is None else f"{percent:.0f}"
        return bool(_step(self.client, "progress", self.id, self.fence, stage, shown))

    def finish(self, outcome: Outcome, settings: Settings) -> bool:
        """Write the outcome: the one terminal state of this scan."""
        state, ttl_s = "done" if outcome.verdict else "failed", int(settings.outcome_ttl_s)
        return bool(_step(self.client, "finish", self.id, self.fence, state, msgspec.json.encode(outcome), ttl_s))

    def give_back(self, *, strike: bool, delay_s: float = 0.0) -> QueueName | None:
        """Put it back into its place; `strike` counts this attempt.

        Out: the queue that now needs a job for it; None when it is not ours, or delayed (the reconciler sees to it).
        """
        answer = cast("bytes", _step(self.client, "give_back", self.id, self.fence, int(strike), int(delay_s * 1000)))
        return None if answer in {b"", b"later"} else msgspec.convert(answer.decode(), QueueName)

    def strike(self, settings: Settings) -> QueueName | None:
        """After the death of its worker: give it back, or end it as poisoned when that was the last attempt.

        Out: the queue that now needs a job for it.
        """
        source, attempt = cast("list[bytes | None]", self.client.hmget(ROW + self.id, "source", "attempt"))
        if source is None or int(attempt or 0) < MOST_ATTEMPTS:
            return self.give_back(strike=True)
        words = f"{MOST_ATTEMPTS} workers in a row died while they scanned it; it is not tried again"
        self.finish(failure_outcome(source.decode(), Poisoned(words)), settings)
        self.client.hincrby("laescan:tally", "poisoned", 1)
        return None


def accept(client: redis.Redis, request: ScanRequest) -> tuple[str, bool]:
    """As `Ledger.accept_for_queue`, for a worker that wants something scanned; out: the id, whether it needs a job."""
    how, id_ = cast("list[bytes]", _step(client, *acceptance(request, None)))
    return id_.decode(), how in {b"new", b"promoted"}


def take_due(client: redis.Redis, *, most: int) -> list[tuple[str, QueueName]]:
    """Rows whose delayed next try is due: each needs a job in its queue now."""
    found = [one.decode() for one in cast("list[bytes]", _step(client, "take_due", most, LONGEST_DELAY_MS))]
    return [(id_, msgspec.convert(queue, QueueName)) for id_, queue in zip(found[::2], found[1::2], strict=True)]


def _step(client: redis.Redis, *arguments: str | bytes | int) -> object:
    return _script(client)(args=arguments)


@lru_cache(4)  # its digest is computed each time it is registered
def _script(client: redis.Redis) -> Script:
    return client.register_script(STEPS)
