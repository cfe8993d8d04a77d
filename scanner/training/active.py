"""Scores of training fakes in, the few that deserve a mask out (8.6).

One reason: masks cost a person's time, so they go where the model is most easily fooled, never to more than 3 % of the
training images.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Ranking = Literal["real", "both", "random"]
"""real: a_T, how real it looks (the paper's); both: a_T + |a_F - 1|; random: the control arm."""
LIMIT = 0.03  # of the training images: the abstract's "masks for less than 3 %"


@dataclass(frozen=True)
class Looked:
    """One training fake after stage 1, as the selection sees it."""

    name: str
    group: str  # its video or identity
    a_real: float  # a_T, should be 0
    a_fake: float  # a_F, should be 1


def challenge(fake: Looked, ranking: Ranking) -> float:
    """How much a mask would teach: high for fakes that look real."""
    return fake.a_real + (abs(fake.a_fake - 1) if ranking == "both" else 0.0)


def select(
    fakes: Sequence[Looked], share: float, *, images: int, ranking: Ranking = "real", per_group: int = 2, seed: int = 0
) -> list[str]:
    """Names of the candidates, most challenging first: at most `share` of the `images` that are trained on.

    No more than `per_group` come from one video or identity, or 400 near-identical frames would win; so fewer may be
    found than asked for.  Raises ValueError for a share above 3 % or a ranking that is not known.
    """
    if not 0 <= share <= LIMIT:
        msg = f"{share:.1%} of the training images is not within 0 to {LIMIT:.0%}, the method's promise"
        raise ValueError(msg)
    if ranking not in get_args(Ranking):
        msg = f"no ranking {ranking!r}; there are {', '.join(get_args(Ranking))}"
        raise ValueError(msg)
    wanted = int(share * images + 1e-9)  # rounded down: 3 % is a limit; 1e-9 as 0.03 * 100 is 2.9999...
    taken: Counter[str] = Counter()
    found: list[str] = []
    for index in _order(fakes, ranking, seed):
        fake = fakes[index]
        if len(found) < wanted and taken[fake.group] < per_group:
            taken[fake.group] += 1
            found.append(fake.name)
    return found


def _order(fakes: Sequence[Looked], ranking: Ranking, seed: int) -> NDArray[np.int64]:
    if ranking == "random":
        return np.random.default_rng(seed).permutation(len(fakes))
    return np.argsort([-challenge(fake, ranking) for fake in fakes], kind="stable")
