"""The further families: exact masks, same seed same forgery, and each of its own mechanism."""

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
from sitters import portraits

from scanner.training import families, forge, masks, mesh, patches
from scanner.training.forge import VISIBLE
from scanner.training.portraits import CANVAS_PX, mean_shape

SEEDS = range(4)
CASES = [*itertools.product(families.NEW, SEEDS)]


def cast(family, seed):
    """A victim and a donor; a second picture of the same person is the first one with another mouth and light."""
    victim, donor = portraits()[seed % 6], portraits()[(seed + 1) % 6]
    if family in families.OF_ONE_PERSON:
        shifted = cv2.warpAffine(victim.canvas, np.array([[1, 0, 2.0], [0, 1, 3.0]]), (CANVAS_PX, CANVAS_PX))
        mouth = masks.named(victim.shape, "lower", CANVAS_PX)[..., None] > 0
        other = np.where(mouth, np.roll(shifted, 7, 0), shifted)
        donor = replace(victim, canvas=np.clip(other * 0.9, 0, 255).astype(np.uint8), source="another day")
    return victim, donor


def forged(family, seed):
    victim, donor = cast(family, seed)
    return victim, families.forged(victim, donor, family, np.random.default_rng(seed))


def change(victim, forgery):
    return np.abs(forgery.picture.astype(np.float64) - victim.canvas).mean(2)


@pytest.mark.parametrize(("family", "seed"), CASES)
def test_a_forgery_changes_its_mask_and_nothing_else(family, seed):
    victim, forgery = forged(family, seed)
    assert forgery.family == family
    assert (forgery.picture.shape, forgery.picture.dtype) == ((CANVAS_PX, CANVAS_PX, 3), np.uint8)
    assert (forgery.mask.shape, forgery.mask.dtype) == ((CANVAS_PX, CANVAS_PX), np.float32)
    assert 0 <= forgery.mask.min() < 1e-6
    assert forgery.mask.max() <= 1 + 1e-6
    assert (change(victim, forgery) * forgery.mask).sum() / forgery.mask.sum() > 0.9 * VISIBLE
    assert change(victim, forgery)[forgery.mask == 0].max() == 0


@pytest.mark.parametrize("family", families.NEW)
def test_the_same_seed_forges_the_same_and_leaves_the_originals_alone(family):
    victim, donor = cast(family, 0)
    before = victim.canvas.copy(), donor.canvas.copy()
    first, again, other = (forged(family, seed)[1] for seed in (0, 0, 6))
    assert (first.picture == again.picture).all()
    assert (first.mask == again.mask).all()
    assert (first.mask != other.mask).any()
    assert (victim.canvas == before[0]).all()
    assert (donor.canvas == before[1]).all()


@pytest.mark.parametrize("family", forge.FAMILIES)
def test_the_first_families_forge_as_they_did(family):
    one = forge.forge(*portraits()[:2], family, np.random.default_rng(5))
    other = families.forged(*portraits()[:2], family, np.random.default_rng(5))
    assert (one.picture == other.picture).all()
    assert (one.mask == other.mask).all()


def test_no_name_is_taken_twice():
    assert not set(forge.FAMILIES) & set(families.NEW)
    assert set(families.FAMILIES) == set(forge.FAMILIES) | set(families.NEW)


def test_an_expression_comes_from_the_same_person_and_everything_else_from_another():
    rng, (victim, twin) = np.random.default_rng(0), cast("expression", 0)
    everybody = [*portraits(), twin]
    assert families.donor_for(victim, everybody, "expression", rng) is twin
    assert families.donor_for(portraits()[1], everybody, "expression", rng) is None
    chosen = {families.donor_for(victim, everybody, "mesh_swap", rng).identity for _ in range(30)}
    assert victim.identity not in chosen
    assert len(chosen) > 2
    with pytest.raises(ValueError, match="cannot come from"):
        families.expression(victim, portraits()[1], rng)


def test_a_portrait_without_a_twin_gives_its_place_to_one_that_has():
    rng, (victim, twin) = np.random.default_rng(0), cast("expression", 0)
    everybody = [*portraits(), twin]
    for portrait in everybody:
        one, other = families.cast(portrait, everybody, "expression", rng)
        assert one.identity == other.identity == victim.identity
        assert one is not other
        assert families.cast(portrait, everybody, "splice", rng)[0] is portrait
    assert families.cast(victim, [victim], "glasses", rng)[1] is victim
    with pytest.raises(ValueError, match="two pictures of one person"):
        families.cast(victim, portraits(), "expression", rng)


def test_registration_undoes_a_shift_of_the_whole_head():
    victim = portraits()[0]
    moved = cv2.warpAffine(victim.canvas, np.array([[1, 0, 6.0], [0, 1, -4.0]]), (CANVAS_PX, CANVAS_PX))
    where = masks.named(victim.shape, "oval", CANVAS_PX)
    before, after = (
        np.abs(p.astype(float) - victim.canvas)[where > 0].mean()
        for p in (moved, families.registered(moved, victim.canvas, where))
    )
    assert after < 0.4 * before
    blank = np.zeros_like(victim.canvas)
    assert (families.registered(blank, victim.canvas, where) == blank).all()


def test_a_mesh_onto_itself_changes_nothing_and_onto_another_shape_brings_the_landmarks_along():
    one, other, corners = portraits()[0], portraits()[1], list(mesh.corners())
    same, inside = mesh.warp(one.canvas, one.shape[corners], one.shape[corners])
    assert np.abs(same.astype(int) - one.canvas)[inside > 0].max() <= 1
    assert same[inside == 0].max() == 0
    dotted = np.zeros_like(other.canvas)
    pupil = other.shape[0].round().astype(int)
    cv2.circle(dotted, tuple(pupil.tolist()), 4, (255, 255, 255), -1)
    warped, _ = mesh.warp(dotted, other.shape[corners], one.shape[corners])
    ys, xs = np.nonzero(warped[..., 0] > 128)
    assert np.hypot(xs.mean() - one.shape[0, 0], ys.mean() - one.shape[0, 1]) < 5


def test_triangles_cover_the_face_once():
    points = (mean_shape() * 256)[list(mesh.corners())]
    triangles = mesh.triangulate(points, 256)
    assert len(mesh.corners()) > 60
    covered = np.zeros((256, 256), np.int32)
    for triangle in triangles:
        one = np.zeros((256, 256), np.uint8)
        cv2.fillConvexPoly(one, points[triangle].round().astype(np.int32), 1)
        covered += cv2.erode(one, np.ones((3, 3), np.uint8))
    assert covered.max() == 1


def test_patches_continue_a_pattern_that_diffusion_blurs():
    stripes = np.zeros((192, 192, 3), np.uint8)
    stripes[:, ::8] = stripes[:, 1::8] = stripes[:, 2::8] = stripes[:, 3::8] = 200
    hole = np.zeros((192, 192), np.float32)
    hole[80:112, 80:112] = 1
    filled = patches.fill(stripes, hole, np.random.default_rng(0))
    blurred = cv2.inpaint(stripes, hole.astype(np.uint8), 5, cv2.INPAINT_TELEA)
    ours, theirs = (np.abs(p.astype(int) - stripes)[hole > 0].mean() for p in (filled, blurred))
    assert ours < 0.5 * theirs
    assert (filled == stripes)[hole == 0].all()


@pytest.mark.parametrize("area", [np.s_[:, :], np.s_[:0, :0], np.s_[:30, :30], np.s_[10:, 10:]])
def test_any_hole_can_be_filled(area):
    picture = portraits()[0].canvas[:120, :160]
    hole = np.zeros(picture.shape[:2], np.float32)
    hole[area] = 1
    filled = patches.fill(picture, hole, np.random.default_rng(0))
    assert (filled.shape, filled.dtype) == (picture.shape, np.uint8)
    assert (filled == picture)[hole == 0].all()


def test_glasses_sit_on_the_eyes():
    for seed in range(6):
        victim, forgery = forged("glasses", seed)
        ys, xs = np.nonzero(forgery.mask > 0.03)
        eyes = victim.shape[:2].mean(0)
        assert abs(xs.mean() - eyes[0]) < 25
        assert abs(ys.mean() - eyes[1]) < 25
