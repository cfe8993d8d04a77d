"""Which host may be asked now: a rate and a few connections for each, less for those that are busy, none for the dead.

In: items and their hosts, and how each request ended. Out: the next item that may be fetched at this moment.
One reason: a list of a million URLs is a load test of whoever hosts them, unless somebody counts. And a host that
answers slowly, or never, must cost its own rows time and nobody else's.

    connections   from 2 up to `per_host`, one more after each answer, half as many after each failure
    rate          `per_host_rate`; after a 429 what the host let pass, then more until the next 429, then 3/4 of that
    breaker       after 5 failures in a row a pause and one try; after the third such pause the host is given up

Pure: no clock of its own, no I/O; what is random is spread, not hidden.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, TypeVar

import msgspec

T = TypeVar("T")

Ending = Literal["answered", "refused", "busy", "failed"]
"""answered: with whatever; refused: before anybody was asked; busy: 429 and the like; failed: no answer, or no end."""

STRIKES: Final = 5
"""Failures in a row that open the breaker."""
BREAKS_S: Final = (10.0, 30.0, 90.0)
"""How long it stays open, each time; one more failure after them and the host is given up."""
FIRST_CONNECTIONS: Final = 2.0
BUSY_PAUSE_S: Final = 5.0
"""After a 429 that does not say how long; twice as long each time."""
LONGEST_BUSY_PAUSE_S: Final = 120.0
NEAR: Final = 0.85
"""Of the rate that was too much: from here on slowly."""
FAR_EVERY_S, FAR_STEP = 1.0, 1.15
NEAR_EVERY_S, NEAR_STEP = 10.0, 1.03
REMEMBERED: Final = 64  # times of the last answers of a host, from which its rate is learned


class Policy(msgspec.Struct, frozen=True):
    """What is polite: connections and requests per second for each host (0 = as many as it answers)."""

    per_host: int = 8
    per_host_rate: float = 0.0


class Patience(msgspec.Struct, frozen=True):
    """How often a row is fetched again after it failed, and for how long a host that asks to wait is waited for."""

    retries: int = 3
    longest_wait_s: float = 600.0


class NoHosts:
    """What a progress bar asks of hosts, where those who scan elsewhere count them."""

    waiting = 0

    def blocked(self, _now_s: float) -> list[tuple[str, float, int]]:
        """None that is known of here."""
        return []


@dataclass
class _Host(Generic[T]):
    name: str
    rate: float  # requests per second, 0 = any
    most: int
    waiting: deque[T] = field(default_factory=deque)
    in_flight: int = 0
    connections: float = FIRST_CONNECTIONS
    not_before_s: float = 0.0
    paused: bool = False
    is_listed: bool = False  # in `ready` or in the heap
    strikes: int = 0
    breaks: int = 0
    epoch: int = 0  # requests that began before the last pause tell nothing new
    busy: int = 0
    ceiling: float = float("inf")  # a rate that was too much
    grown_s: float = 0.0
    learned: bool = False
    answers_s: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    given_up: bool = False

    @property
    def is_spotless(self) -> bool:
        return not (self.strikes or self.breaks or self.busy or self.learned or self.given_up or self.paused)


@dataclass(frozen=True)
class Turn(Generic[T]):
    """Leave to fetch one item; `given_up`: the host is not asked any more, the item ends here."""

    item: T
    host: str
    epoch: int
    given_up: bool = False


class Hosts(Generic[T]):
    """Items by host, and turns for them; times are seconds of any one clock."""

    def __init__(self, policy: Policy, *, unlimited: Callable[[str], bool] = lambda _host: False) -> None:
        self._policy, self._unlimited = policy, unlimited
        self._hosts: dict[str, _Host[T]] = {}
        self._ready: deque[_Host[T]] = deque()
        self._later: list[tuple[float, int, _Host[T]]] = []
        self._tie = itertools.count()
        self.waiting = 0

    def add(self, host: str, item: T) -> None:
        """Let an item wait for its host's turn; a host "" is none, and asks for no politeness."""
        state = self._hosts.get(host)
        if state is None:
            free = not host or self._unlimited(host)
            state = _Host(host, 0.0 if free else self._policy.per_host_rate, self._policy.per_host if host else 1 << 30)
            state.connections = FIRST_CONNECTIONS if host else float(1 << 30)
            self._hosts[host] = state
        state.waiting.append(item)
        self.waiting += 1
        self._list(state, 0.0)

    def queued(self, host: str) -> int:
        """Items that wait for this host."""
        state = self._hosts.get(host)
        return 0 if state is None else len(state.waiting)

    def next(self, now_s: float) -> Turn[T] | None:
        """An item whose host may be asked now; None when there is none at this moment."""
        while self._later and self._later[0][0] <= now_s:
            state = heapq.heappop(self._later)[2]
            self._ready.append(state)
        while self._ready:
            state = self._ready.popleft()
            state.is_listed = False
            if not state.waiting or (state.in_flight >= self._allowed(state) and not state.given_up):
                continue
            if state.not_before_s > now_s and not state.given_up:
                self._list(state, now_s)
                continue
            return self._take(state, now_s)
        return None

    def wakes_s(self) -> float | None:
        """When the next host may be asked again; None when none waits for a time."""
        return self._later[0][0] if self._later else None

    def ended(self, turn: Turn[T], ending: Ending, now_s: float, *, retry_after_s: float | None = None) -> None:
        """Say how a turn ended; each turn that was no `given_up` one, once."""
        state = self._hosts[turn.host]
        state.in_flight -= 1
        if turn.host:
            self._learn(state, turn, ending, now_s, retry_after_s)
        self._list(state, now_s)
        if not state.waiting and not state.in_flight and state.is_spotless and not state.is_listed:
            del self._hosts[turn.host]  # a million hosts of one URL each must not stay

    def blocked(self, now_s: float) -> list[tuple[str, float, int]]:
        """Hosts that wait for a time: name, seconds left, items; the longest first."""
        held = {id(state): state for _, _, state in self._later if state.not_before_s > now_s + 1 and state.waiting}
        rows = [(state.name, state.not_before_s - now_s, len(state.waiting)) for state in held.values()]
        return sorted(rows, key=lambda row: -row[1])

    # ------------------------------------------------------------ within

    def _take(self, state: _Host[T], now_s: float) -> Turn[T]:
        item = state.waiting.popleft()
        self.waiting -= 1
        if state.given_up:
            self._list(state, now_s)
            return Turn(item, state.name, state.epoch, given_up=True)
        state.in_flight += 1
        state.paused = False
        if state.rate:
            state.not_before_s = max(state.not_before_s, now_s) + 1 / state.rate
        self._list(state, now_s)
        return Turn(item, state.name, state.epoch)

    def _allowed(self, state: _Host[T]) -> int:
        """Connections now; one only while it is tried again after a pause."""
        return 1 if state.strikes >= STRIKES else max(1, int(state.connections))

    def _list(self, state: _Host[T], now_s: float) -> None:
        """Put a host where `next` finds it, if it has something to do."""
        if state.is_listed or not state.waiting:
            return
        if not state.given_up and state.in_flight >= self._allowed(state):
            return  # the end of one of its requests lists it
        state.is_listed = True
        if state.given_up or state.not_before_s <= now_s:
            self._ready.append(state)
        else:
            heapq.heappush(self._later, (state.not_before_s, next(self._tie), state))

    def _learn(self, state: _Host[T], turn: Turn[T], ending: Ending, now_s: float, retry_after_s: float | None) -> None:
        if ending == "answered":
            state.strikes, state.breaks, state.busy = 0, 0, 0
            state.answers_s.append(now_s)
            fast = 1.0 if not state.learned else 1 / max(state.connections, 1.0)
            state.connections = min(state.most, state.connections + fast)
            self._grow(state, now_s)
        elif ending == "refused":
            state.not_before_s -= 1 / state.rate if state.rate else 0.0  # nobody was asked
        elif turn.epoch != state.epoch:
            return  # it began before the pause that its like have caused
        elif ending == "busy":
            self._slow_down(state, now_s, retry_after_s)
        elif ending == "failed":
            self._strike(state, now_s)

    def _grow(self, state: _Host[T], now_s: float) -> None:
        """Come back to a learned rate: fast while far below the one that was too much, slowly where it was."""
        if not state.learned or now_s <= state.grown_s:
            return
        near = state.rate > NEAR * state.ceiling
        if now_s - state.grown_s >= (NEAR_EVERY_S if near else FAR_EVERY_S):
            most = self._policy.per_host_rate or float("inf")
            state.rate, state.grown_s = min(state.rate * (NEAR_STEP if near else FAR_STEP), most), now_s

    def _slow_down(self, state: _Host[T], now_s: float, retry_after_s: float | None) -> None:
        """A pause as long as it asks for, then the rate at which it answered before."""
        state.busy += 1
        pause_s = min(BUSY_PAUSE_S * 2 ** (state.busy - 1), LONGEST_BUSY_PAUSE_S)
        pause_s = pause_s if retry_after_s is None else max(retry_after_s, 0.5)
        answers = state.answers_s
        span_s = now_s + pause_s - answers[0] if answers else 0.0  # the pause is part of what it lets pass
        if state.learned:
            state.ceiling, state.rate = state.rate, 0.75 * state.rate
        else:
            allowed = len(answers) / span_s if len(answers) > 2 and span_s > 0 else 1 / pause_s
            state.rate = min(state.rate or allowed, allowed)
        state.learned, state.grown_s = True, now_s + pause_s
        state.connections = max(1.0, state.connections / 2)
        state.answers_s.clear()
        self._pause(state, now_s + pause_s)

    def _strike(self, state: _Host[T], now_s: float) -> None:
        state.strikes += 1
        state.connections = max(1.0, state.connections / 2)
        if state.strikes < STRIKES:
            return
        if state.breaks >= len(BREAKS_S):
            state.given_up = True
            state.is_listed = False
            self._later = [entry for entry in self._later if entry[2] is not state]
            heapq.heapify(self._later)
            return
        self._pause(state, now_s + BREAKS_S[state.breaks])
        state.breaks += 1

    def _pause(self, state: _Host[T], until_s: float) -> None:
        state.epoch += 1
        state.paused = True
        state.not_before_s = max(state.not_before_s, until_s)
