"""Selection on hand-made scores: the known top, the 3 % limit, the cap per person (notes on the LAE, 8.9, 6)."""

import pytest

from scanner.training.active import Looked, select

FAKES = [
    Looked(f"fake{n}", f"video{n // 3}", a_real, a_fake=1.0) for n, a_real in enumerate([0.9, 0.8, 0.7, 0.1, 0.6, 0.2])
]


def test_those_that_look_most_real_are_chosen_in_order():
    assert select(FAKES, 0.03, images=100, per_group=3) == ["fake0", "fake1", "fake2"]


def test_no_more_than_the_cap_come_from_one_video():
    assert select(FAKES, 0.03, images=100, per_group=2) == ["fake0", "fake1", "fake4"]
    assert select(FAKES, 0.03, images=1000, per_group=1) == ["fake0", "fake4"], "fewer than asked for, not one more"


@pytest.mark.parametrize(("images", "count"), [(33, 0), (34, 1), (66, 1), (67, 2), (100, 3), (199, 5)])
def test_three_percent_is_a_limit(images, count):
    assert len(select(FAKES, 0.03, images=images, per_group=9)) == count


@pytest.mark.parametrize("share", [0.0301, 1.0, -0.01])
def test_more_than_the_promise_is_refused(share):
    with pytest.raises(ValueError, match="not within 0 to 3%"):
        select(FAKES, share, images=100)


def test_none_are_chosen_for_nothing():
    assert select(FAKES, 0, images=100) == []
    assert select([], 0.03, images=100) == []


def test_the_option_minds_a_sleeping_fake_half_too():
    fakes = [Looked("real", "a", 0.5, 1.0), Looked("asleep", "b", 0.1, 0.0), Looked("too loud", "c", 0.1, 1.7)]
    assert select(fakes, 0.03, images=100) == ["real", "asleep", "too loud"]
    assert select(fakes, 0.03, images=100, ranking="both") == ["asleep", "too loud", "real"]


def test_the_control_arm_is_random_the_same_for_a_seed_and_capped():
    many = [Looked(f"fake{n}", f"video{n // 10}", n / 1000, 1.0) for n in range(1000)]
    drawn = {seed: select(many, 0.03, images=2000, ranking="random", seed=seed) for seed in (0, 1)}
    assert drawn[0] == select(many, 0.03, images=2000, ranking="random", seed=0)
    assert drawn[0] != drawn[1]
    assert len(drawn[0]) == len(set(drawn[0])) == 60
    mean = sum(int(name.removeprefix("fake")) for name in drawn[0]) / 60
    assert 300 < mean < 700, "not by score"


def test_equal_scores_keep_their_order():
    equal = [Looked(f"fake{n}", f"video{n}", 0.5, 1.0) for n in range(9)]
    assert select(equal, 0.03, images=100) == ["fake0", "fake1", "fake2"]


def test_an_unknown_ranking_is_refused():
    with pytest.raises(ValueError, match="no ranking 'best'"):
        select(FAKES, 0.03, images=100, ranking="best")
