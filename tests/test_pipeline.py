"""From a source to an outcome: the order on real media, early exit, every failure a value, nothing left behind."""

import asyncio
import errno
import hashlib
import logging
import os
import tempfile
from pathlib import Path

import media
import models
import msgspec
import numpy as np
import pytest
import torch
from origin import Origin
from PIL import Image

from scanner import pipeline
from scanner.contract import Label
from scanner.detection import checkpoint, detector, tiles
from scanner.detection.faces import FaceDetector, align
from scanner.detection.local_model import LocalModel
from scanner.errors import BadWeights
from scanner.pipeline import STAGES, Scanner
from scanner.settings import Settings
from scanner.verdict import Calibration

MEDIA = Path(__file__).parent / "media"
PORTRAIT = MEDIA / "fellow_1.jpg"


def settings(folder, **changes):
    calibration = changes.pop("calibration", models.CALIBRATION)
    weights = models.random_checkpoint(folder, calibration=calibration)
    return Settings(weights=str(weights), threads=1, allow_networks=("127.0.0.5/32",), **changes)


@pytest.fixture(scope="module")
def scanner(tmp_path_factory):
    threads = torch.get_num_threads()
    with Scanner(settings(tmp_path_factory.mktemp("weights"))) as opened:
        yield opened
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return models.talking_head(tmp_path_factory.mktemp("clip") / "head.mp4")


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The system's folder for temporary files, of this test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(scope="module")
def origin():
    server = Origin()
    yield server
    server.close()


# ---------------------------------------------------------------- verdicts


def test_a_portrait_gets_a_verdict_with_its_evidence(scanner):
    outcome = scanner.scan_blocking(str(PORTRAIT)).outcome
    verdict = outcome.verdict
    (face,) = verdict.faces
    assert outcome.source == str(PORTRAIT)
    assert verdict.media.sha256 == hashlib.sha256(PORTRAIT.read_bytes()).hexdigest()
    assert (verdict.media.kind, verdict.media.format, verdict.media.width) == ("image", "jpeg", 384)
    assert verdict.model == scanner.model.info
    assert face.score == pytest.approx(verdict.score)
    assert len(face.attention.grid) == 16 * 16
    assert set(verdict.timings_s) == set(STAGES) - {"recall"}
    assert verdict.reason


def test_the_score_is_that_of_the_aligned_crop(scanner):
    result = scanner.scan_blocking(str(PORTRAIT), keep_frames=True)
    (frame,) = result.frames
    (face,) = FaceDetector().detect([frame.pixels])[0]
    raw = scanner.model.detector.score(align(frame.pixels, face)[0][None]).raw[0]
    expected = 1 / (1 + np.exp(-scanner.model.calibration.log_odds(float(raw))))
    assert result.outcome.verdict.score == pytest.approx(expected, abs=1e-4)


def test_a_picture_without_a_face_has_no_score(scanner, tmp_path):
    path = tmp_path / "flat.png"
    path.write_bytes(media.picture("png"))
    verdict = scanner.scan_blocking(str(path)).outcome.verdict
    assert (verdict.label, verdict.score, verdict.faces) == (Label.NO_FACE, None, ())


def test_an_animation_without_a_face_has_no_score(scanner, tmp_path):
    path = tmp_path / "grey.gif"
    path.write_bytes(media.animation("gif", 20))
    verdict = scanner.scan_blocking(str(path)).outcome.verdict
    assert (verdict.label, verdict.media.kind, len(verdict.frames)) == (Label.NO_FACE, "animation", 16)


def test_a_video_that_does_not_settle_early_is_scored_in_all_frames(scanner, clip):
    verdict = scanner.scan_blocking(str(clip)).outcome.verdict
    times = [frame.time_s for frame in verdict.frames]
    assert len(times) == 16
    assert times == sorted(times)
    assert [face.frame for face in verdict.faces] == list(range(16))
    assert {face.track for face in verdict.faces} == {0}
    assert not [warning for warning in verdict.warnings if "16 frames were scored" in warning]
    lefts = [face.box[0] for face in verdict.faces]
    assert np.corrcoef(lefts, times)[0, 1] > 0.9, "faces and frames do not belong together"


@pytest.mark.parametrize(
    ("calibration", "label"),
    [(models.SURELY_AUTHENTIC, Label.AUTHENTIC), (models.SURELY_MANIPULATED, Label.MANIPULATED)],
    ids=["authentic", "manipulated"],
)
def test_scoring_stops_at_8_frames_that_agree(tmp_path, clip, calibration, label):
    with Scanner(settings(tmp_path, calibration=calibration)) as scanner:
        result = scanner.scan_blocking(str(clip), keep_frames=True)
    verdict = result.outcome.verdict
    assert verdict.label is label
    assert len(verdict.frames) == len(result.frames) == 8
    assert any("8 of 16 frames" in warning for warning in verdict.warnings)
    assert verdict.frames[-1].time_s > 0.75 * verdict.media.duration_s, "the 8 must be spread over the whole"


def test_frames_are_kept_only_when_asked_for(scanner, clip):
    assert scanner.scan_blocking(str(PORTRAIT)).frames == ()
    result = scanner.scan_blocking(str(clip), keep_frames=True)
    kept = [(frame.index, frame.time_s, *frame.pixels.shape[1::-1]) for frame in result.frames]
    assert kept == [(f.index, f.time_s, f.width, f.height) for f in result.outcome.verdict.frames]


def test_progress_names_every_stage_in_order(scanner, clip):
    told = []
    scanner.scan_blocking(str(clip), progress=lambda stage, done: told.append((stage, done)))
    assert list(dict.fromkeys(stage for stage, _ in told)) == [stage for stage in STAGES if stage != "recall"]
    assert all(done is None or 0 <= done <= 1 for _, done in told)


def test_scans_at_once_do_not_mix(scanner):
    paths = [str(MEDIA / f"{name}.jpg") for name in ("fellow_1", "london_1", "fellow_2")]

    async def all_of_them():
        return await asyncio.gather(*(scanner.scan(path) for path in paths))

    together = [result.outcome.verdict for result in asyncio.run(all_of_them())]
    alone = [scanner.scan_blocking(path).outcome.verdict for path in paths]
    assert [verdict.score for verdict in together] == pytest.approx([verdict.score for verdict in alone], abs=1e-3)
    assert [verdict.media.sha256 for verdict in together] == [verdict.media.sha256 for verdict in alone]


# ---------------------------------------------------------------- whole pictures


@pytest.fixture(scope="module")
def surveyor(tmp_path_factory):
    """A scanner that finds every part of every picture inpainted."""
    folder = tmp_path_factory.mktemp("weights")
    whole = models.random_checkpoint(folder, name="whole", seed=1, calibration=SURELY_INPAINTED)
    with Scanner(settings(folder, regions=True, region_weights=str(whole), calibration=AS_SURE)) as opened:
        yield opened


SURELY_INPAINTED = Calibration(slope=1.0, intercept=6.0, authentic=0.3, manipulated=0.9)
AS_SURE = Calibration(slope=2.0, intercept=0.0, authentic=0.001, manipulated=0.9)  # faces: inconclusive


def test_a_region_decides_over_a_picture_without_a_face(surveyor, tmp_path):
    path = tmp_path / "scene.png"
    Image.fromarray(np.hstack(checkpoint.golden_crops())[:, :420]).save(path)
    verdict = surveyor.scan_blocking(str(path)).outcome.verdict
    assert (verdict.label, verdict.faces) == (Label.MANIPULATED, ())
    assert verdict.score == verdict.regions[0].score >= verdict.region_threshold == 0.9
    assert all(0 <= x0 < x1 <= 420 and 0 <= y0 < y1 <= 256 for x0, y0, x1, y1 in (r.box for r in verdict.regions))
    assert "was inpainted" in verdict.reason or "were inpainted" in verdict.reason


def test_a_region_stands_beside_a_face_that_keeps_its_score(surveyor, scanner):
    verdict = surveyor.scan_blocking(str(PORTRAIT)).outcome.verdict
    alone = scanner.scan_blocking(str(PORTRAIT)).outcome.verdict
    assert (alone.regions, alone.region_threshold) == ((), None)
    assert verdict.label is Label.MANIPULATED
    assert verdict.faces[0].score == pytest.approx(alone.faces[0].score, abs=1e-4)
    assert verdict.regions


def test_the_tiles_are_scored_by_the_checkpoint_for_whole_pictures(surveyor):
    frame = surveyor.scan_blocking(str(PORTRAIT), keep_frames=True).frames[0]
    survey = asyncio.run(surveyor.model.survey(frame.pixels))
    expected = surveyor.model.for_regions.score(tiles.cut(frame.pixels, tiles.plan(*frame.pixels.shape[:2])))
    assert [one.raw for one in survey.seen] == pytest.approx(expected.raw.tolist(), abs=1e-5)
    assert survey.calibration == SURELY_INPAINTED


def test_videos_and_animations_are_not_surveyed(surveyor, clip, tmp_path):
    path = tmp_path / "grey.gif"
    path.write_bytes(media.animation("gif", 4))
    for source in (clip, path):
        verdict = surveyor.scan_blocking(str(source)).outcome.verdict
        assert (verdict.regions, verdict.region_threshold) == ((), None)


def test_the_model_id_binds_both_checkpoints(surveyor, tmp_path):
    """A verdict remembered with one setting is never given with the other."""
    with_regions, faces_only = surveyor.model.info.model_id, surveyor.model.detector.info.model_id
    assert len(with_regions) == len(faces_only) == 16
    another = models.random_checkpoint(tmp_path, name="whole", seed=2)
    with LocalModel.load(msgspec.structs.replace(surveyor.settings, region_weights=str(another))) as model:
        assert len({with_regions, faces_only, model.info.model_id}) == 3
        assert model.detector.info.model_id == faces_only


def test_regions_without_their_weights_are_refused_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(detector, "SHIPPED_REGIONS", tmp_path / "none.safetensors")
    monkeypatch.setattr(checkpoint, "SHIPPED_REGIONS", tmp_path / "none.safetensors")
    with pytest.raises(BadWeights, match=r"LAESCAN_REGION_WEIGHTS .*LAESCAN_REGIONS=false"):
        Scanner(settings(tmp_path, regions=True)).__enter__()


def test_a_checkpoint_of_faces_is_not_taken_for_one_of_whole_pictures(tmp_path):
    faces = models.random_checkpoint(tmp_path, name="faces", training={"subject": "face"})
    with pytest.raises(BadWeights, match="trained on faces"):
        Scanner(settings(tmp_path, regions=True, region_weights=str(faces))).__enter__()


# ---------------------------------------------------------------- models and memories of others


class Notebook:
    """A memory that writes down what it is asked and told; it knows what it is given."""

    def __init__(self, known=None, known_decoded=None):
        self.known, self.known_decoded, self.calls = known, known_decoded, []

    async def expected(self, source):
        self.calls.append(("expected", source))

    async def recall(self, fetched):
        self.calls.append(("recall", fetched.sha256))
        return self.known

    async def recall_decoded(self, fetched, decoded):
        self.calls.append(("recall_decoded", fetched.sha256, len(decoded.frames)))
        return self.known_decoded

    async def remember(self, fetched, decoded, verdict):
        self.calls.append(("remember", fetched.sha256, len(decoded.frames), verdict))


def scan_with(scanner, memory, **wishes):
    with Scanner(scanner.settings, model=scanner.model, memory=memory) as remembering:
        return asyncio.run(remembering.scan(str(PORTRAIT), **wishes))


def test_a_memory_is_asked_before_and_after_the_decoding_and_told_the_verdict(scanner):
    told, memory = [], Notebook()
    verdict = scan_with(scanner, memory, progress=lambda stage, _done: told.append(stage)).outcome.verdict
    digest = verdict.media.sha256
    assert memory.calls[:2] == [("expected", str(PORTRAIT)), ("recall", digest)]
    assert memory.calls[2:] == [("recall_decoded", digest, 1), ("remember", digest, 1, verdict)]
    assert list(dict.fromkeys(told)) == list(STAGES)
    assert set(verdict.timings_s) == set(STAGES)


def test_what_is_recalled_is_not_judged_again(scanner):
    known = scanner.scan_blocking(str(PORTRAIT)).outcome.verdict
    exact, decoded = Notebook(known=known), Notebook(known_decoded=known)
    assert scan_with(scanner, exact).outcome.verdict is known
    assert scan_with(scanner, decoded).outcome.verdict is known
    assert [name for name, *_ in exact.calls] == ["expected", "recall"]
    assert [name for name, *_ in decoded.calls] == ["expected", "recall", "recall_decoded"]


def test_a_rescan_asks_no_memory_and_is_remembered(scanner):
    memory = Notebook(known=scanner.scan_blocking(str(PORTRAIT)).outcome.verdict)
    scan_with(scanner, memory, rescan=True)
    assert [name for name, *_ in memory.calls] == ["remember"]


def test_a_report_on_a_recalled_verdict_has_its_frames_unless_they_are_of_another_size(scanner):
    known = scanner.scan_blocking(str(PORTRAIT)).outcome.verdict
    larger = msgspec.structs.replace(known, frames=(msgspec.structs.replace(known.frames[0], width=999),))
    assert len(scan_with(scanner, Notebook(known=known), keep_frames=True).frames) == 1
    assert scan_with(scanner, Notebook(known_decoded=larger), keep_frames=True).frames == ()


def test_a_given_model_is_asked_in_the_name_of_who_waits_and_stays_open(scanner):
    class Model:
        info, calibration = scanner.model.info, scanner.model.calibration
        asked = []  # noqa: RUF012 - one model, one list

        async def look(self, frames, *, urgent=True):
            self.asked.append(urgent)
            return [[] for _ in frames]

        async def survey(self, picture, *, urgent=True):
            """Nothing: it sees faces only."""

    for urgent in (True, False):
        with Scanner(scanner.settings, model=Model()) as bulk:
            verdict = asyncio.run(bulk.scan(str(PORTRAIT), urgent=urgent)).outcome.verdict
        assert verdict.label is Label.NO_FACE
    assert Model.asked == [True, False]


# ---------------------------------------------------------------- failures are values


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "gone"),
        (b"", "empty"),
        (b"hello", "unsupported_media"),
        (PORTRAIT.read_bytes()[:300], "broken_media"),
        (media.webp_bomb(), "too_many_pixels"),
    ],
    ids=["missing", "empty", "text", "cut off", "bomb"],
)
def test_what_is_wrong_with_a_file_is_an_outcome(scanner, tmp_path, temporary, content, code):
    path = tmp_path / "file.jpg"
    if content is not None:
        path.write_bytes(content)
    outcome = scanner.scan_blocking(str(path)).outcome
    assert (outcome.failure.code, outcome.verdict) == (code, None)
    assert not list(temporary.iterdir())


def test_a_url_is_scanned_and_its_download_removed(scanner, origin, temporary):
    url = origin.answer("/portrait.jpg", PORTRAIT.read_bytes())
    outcome = scanner.scan_blocking(url).outcome
    assert outcome.verdict.media.sha256 == hashlib.sha256(PORTRAIT.read_bytes()).hexdigest()
    assert not list(temporary.iterdir())


def test_a_server_that_asks_to_wait_is_quoted(scanner, origin):
    url = origin.answer("/busy", status="429 Too Many Requests", Retry_After="7")
    failure = scanner.scan_blocking(url).outcome.failure
    assert (failure.code, failure.retryable, failure.retry_after_s) == ("rate_limited", True, 7.0)


def test_a_bug_is_an_outcome_with_a_trace_in_the_log(scanner, temporary, monkeypatch, caplog):
    monkeypatch.setattr(pipeline, "judge", lambda *_, **__: 1 // 0)
    with caplog.at_level(logging.ERROR):
        failure = scanner.scan_blocking(str(PORTRAIT)).outcome.failure
    assert failure.code == "internal"
    assert "ZeroDivisionError" in failure.message
    assert "Traceback" in caplog.text
    assert not list(temporary.iterdir())
    monkeypatch.undo()
    assert scanner.scan_blocking(str(PORTRAIT)).outcome.verdict, "one bug must not stop the next scan"


def test_a_cancelled_scan_leaves_nothing_behind(scanner, origin, temporary):
    arrived = asyncio.Event()

    async def hang(writer, _headers):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n\xff\xd8")
        await writer.drain()
        await asyncio.sleep(30)

    origin.routes["/hang"] = hang

    async def cut_short():
        def told(_stage, done):
            if done:  # the first bytes are here
                arrived.set()

        task = asyncio.create_task(scanner.scan(origin.url("/hang"), progress=told))
        await arrived.wait()
        assert list(temporary.iterdir())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cut_short())
    assert not list(temporary.iterdir())


def test_a_name_that_is_no_text_does_not_break_the_answer(scanner, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")
    Path(path).write_bytes(PORTRAIT.read_bytes())
    for name in (path, path + ".gone"):
        outcome = scanner.scan_blocking(name).outcome
        assert "\\udcff" in msgspec.json.decode(msgspec.json.encode(outcome))["source"]


def test_without_weights_there_is_no_scanner_and_no_jail_left(tmp_path):
    scanner = Scanner(Settings(weights=str(tmp_path / "none"), threads=1))
    with pytest.raises(BadWeights), scanner:
        pass
    assert scanner.jail._server is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_no_bug_and_may_pass(number, monkeypatch, caplog):
    async def no_room(*_args, **_how):
        raise OSError(number, "full")

    monkeypatch.setattr(pipeline, "fetch", no_room)
    scanning = Scanner(Settings(), model=object())
    outcome = asyncio.run(scanning.scan("http://127.0.0.1/x.jpg")).outcome
    assert (outcome.failure.code, outcome.failure.retryable) == ("no_room", True)
    assert "a bug" not in caplog.text
