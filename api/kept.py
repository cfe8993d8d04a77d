"""Answers in, the same again as long as nothing has changed on which they stand.

One reason: what one page asks, the next one asks, too, and a kept answer costs half of what asking Redis does. It is
given until Redis tells that one of its keys changed (`api.changes`), so whoever forgets, rescans or judges anew, in
whatever process, does so for everybody at once.
"""

import time
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

KEPT_S: Final = 10.0
"""At most, since answers say how old a verdict is, and a URL is believed for a while only."""
MOST: Final = 2_048
"""Answers: 2 kB each as a rule, 4 MB."""

Question = tuple[str, str]
"""A tenant and its query."""


class _Answer(NamedTuple):
    until: float
    body: bytes
    keys: tuple[bytes, ...]


class Kept:
    """The answers that one process has given lately."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Question, _Answer] = OrderedDict()
        self._standing_on: defaultdict[bytes, set[Question]] = defaultdict(set)
        self.changes = 0
        """Times that something changed; who asks Redis takes note of it before."""

    def answer(self, question: Question) -> bytes | None:
        """What was answered, if it still holds."""
        kept = self._answers.get(question)
        return kept.body if kept is not None and kept.until > time.monotonic() else None

    def keep(self, question: Question, body: bytes, keys: Iterable[bytes], *, changes: int) -> None:
        """Keep an answer that stands on these keys, unless anything changed since Redis was asked for it."""
        if changes != self.changes:
            return
        self._drop(question)
        kept = self._answers[question] = _Answer(time.monotonic() + KEPT_S, body, tuple(keys))
        for key in kept.keys:
            self._standing_on[key].add(question)
        if len(self._answers) > MOST:
            self._drop(next(iter(self._answers)))

    def change(self, keys: Sequence[bytes] | None) -> None:
        """Drop what stands on these keys; all for None."""
        self.changes += 1
        if keys is None:
            self._answers.clear()
            self._standing_on.clear()
            return
        for key in keys:
            for question in list(self._standing_on.get(key, ())):
                self._drop(question)

    def _drop(self, question: Question) -> None:
        kept = self._answers.pop(question, None)
        for key in () if kept is None else kept.keys:
            questions = self._standing_on[key]
            questions.discard(question)
            if not questions:
                del self._standing_on[key]
