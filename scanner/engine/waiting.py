"""Who is next at the engine: requests in, batches of frames out. Pure: no sockets, no clock, no model.

Oldest first; interactive before bulk, but every `BULK_TURN`th batch begins with bulk, so that it never starves.
Frames with faces and tiles of whole pictures take turns: the 192 tiles of a large picture are no reason to wait.
A batch takes what waits and never waits for more. It takes frames, not requests: somebody who waits for one picture
sits through a few frames of a bulk video, not through all of it.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

from scanner.detection.model import Pixels, SeenFace, SeenTile
from scanner.engine.wire import Look, Wish

BULK_TURN = 4


@dataclass(eq=False)
class Waiting:
    """One request in the engine: its frames, how many of them were taken, and what was seen in them."""

    look: Wish
    frames: Sequence[Pixels]
    taken: int = 0
    is_started: bool = False
    seen: dict[int, list[SeenFace] | SeenTile] = field(default_factory=dict)

    @property
    def is_seen(self) -> bool:
        """Whether every frame was looked at."""
        return len(self.seen) == len(self.frames)

    @property
    def in_order(self) -> list[list[SeenFace] | SeenTile]:
        """What was seen, frame by frame, once every one was looked at."""
        return [self.seen[number] for number in range(len(self.frames))]


@dataclass(frozen=True)
class Batch:
    """Frames to look at in one go, all with the same wishes: (whose, which of his)."""

    parts: tuple[tuple[Waiting, int], ...]

    @property
    def look(self) -> Wish:
        """The wishes."""
        return self.parts[0][0].look

    @property
    def frames(self) -> list[Pixels]:
        """The pixels."""
        return [waiting.frames[number] for waiting, number in self.parts]

    @property
    def requests(self) -> list[Waiting]:
        """Whose frames these are, each once."""
        return list(dict.fromkeys(waiting for waiting, _ in self.parts))


class Queue:
    """At most `most` requests with frames that nobody has taken yet."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lanes: dict[bool, list[Waiting]] = {True: [], False: []}  # by urgency, oldest first
        self._turn = 0
        self._last: dict[bool, type[Wish] | None] = {True: None, False: None}  # what each lane's last batch was of

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def count(self, *, urgent: bool) -> int:
        """How many wait in one lane."""
        return len(self._lanes[urgent])

    def add(self, waiting: Waiting) -> bool:
        """Queue a request by its age; False when there is no room."""
        if len(self) >= self._most:
            return False
        bisect.insort(self._lanes[waiting.look.urgent], waiting, key=lambda one: one.look.asked_s)
        return True

    def drop(self, waiting: Waiting) -> None:
        """Forget what was not taken of a request."""
        lane = self._lanes[waiting.look.urgent]
        if waiting in lane:
            lane.remove(waiting)

    def take(self, most_frames: int) -> Batch | None:
        """The next batch; None when nobody waits."""
        self._turn += 1
        bulk_first = self._turn % BULK_TURN == 0
        parts: list[tuple[Waiting, int]] = []
        for waiting in [*self._in_turn(urgent=not bulk_first), *self._in_turn(urgent=bulk_first)]:
            if parts and not _fit(parts[0][0].look, waiting.look):
                continue
            numbers = range(waiting.taken, min(len(waiting.frames), waiting.taken + most_frames - len(parts)))
            parts += [(waiting, number) for number in numbers]
            waiting.taken += len(numbers)
            if waiting.taken == len(waiting.frames):
                self.drop(waiting)
            if len(parts) == most_frames or waiting.look.losses:
                break
        if not parts:
            return None
        first = parts[0][0].look
        self._last[first.urgent] = type(first)
        return Batch(tuple(parts))

    def _in_turn(self, *, urgent: bool) -> list[Waiting]:
        """One lane, oldest first, but tiles after frames and frames after tiles."""
        return sorted(self._lanes[urgent], key=lambda one: isinstance(one.look, self._last[urgent] or ()))


def _fit(one: Wish, other: Wish) -> bool:
    """Whether two requests may share a batch; what an engine died of may not take others along."""
    return not other.losses and _manner(one) == _manner(other)


def _manner(wish: Wish) -> tuple[int, int, int] | None:
    return (wish.quarters, wish.min_face_px, wish.max_faces) if isinstance(wish, Look) else None
