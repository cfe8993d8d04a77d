"""The report: self-contained, escaped, complete; and the timeline behind it."""

import base64
import contextlib
import gc
import io
import re
import resource
import weakref
from dataclasses import dataclass
from html.parser import HTMLParser

import msgspec
import numpy as np
import pytest
from PIL import Image
from verdicts import HIGH, LOW, film, scored, still, surveyed, talking_head

from scanner.contract import CacheInfo, Failure, Label, Outcome
from scanner.folders import UnwritableError
from scanner.report.page import Report, ReportItem, write_report
from scanner.report.timeline import timeline

HOSTILE = [
    "<script>alert(1)</script>",
    "javascript:alert(1)",
    'https://h/"><img src=x onerror=alert(1)>',
    "x' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "data:text/html,<b>",
    "</title><svg/onload=alert(1)>",
]


@dataclass(frozen=True)
class Kept:
    """What the report needs of a `decode.Frame`."""

    pixels: np.ndarray
    index: int
    time_s: float | None = None


class Page(HTMLParser):
    """Tags with attributes, and the text, of a report."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "input"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += "" if "style" in self.open else data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def picture(source="a.jpg", raw=HIGH, **changes):
    verdict = msgspec.structs.replace(still(scored(raw, peak_at=(11, 8))), **changes)
    return ReportItem(Outcome(source=source, verdict=verdict), (Kept(np.full((600, 800, 3), 128, np.uint8), 0),))


def clip(raws, source="a.mp4"):
    frames = tuple(Kept(np.full((90, 120, 3), 10 * i, np.uint8), i * 50, i * 2.0) for i in range(len(raws)))
    return ReportItem(Outcome(source=source, verdict=film(talking_head(raws), len(raws))), frames)


def failed(source="gone.jpg", *, retryable=False, after=None, message="The server says that it is gone."):
    return ReportItem(Outcome(source=source, failure=Failure("gone", message, retryable, after)))


@contextlib.contextmanager
def room(size_bytes):
    """No file may be larger: as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_report_holds_nothing_of_what_it_has_drawn(tmp_path):
    report, item = Report(tmp_path), picture()
    pixels = weakref.ref(item.frames[0].pixels)
    report.add(item)
    del item
    gc.collect()
    assert pixels() is None
    page = Page(report.write().read_text("utf-8"))
    assert len(page.all("article")) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["01-overlay.jpg", "report.html"]


def noise(source="noise.jpg"):
    pixels = np.random.default_rng(1).integers(0, 255, (600, 800, 3), np.uint8)
    return ReportItem(Outcome(source=source, verdict=still(scored(HIGH))), (Kept(pixels, 0),))


def test_a_picture_of_noise_is_drawn_as_any_other(tmp_path):
    assert len(page_of(tmp_path, noise()).all("img")) > 2


def test_without_room_for_a_picture_the_report_has_what_came_before_it(tmp_path):
    report = Report(tmp_path)
    report.add(failed("before.jpg"))
    with room(100_000):
        with pytest.raises(UnwritableError, match=f"{tmp_path} cannot be written: File too large"):
            report.add(noise())
        page = Page(report.write().read_text("utf-8"))
    assert "before.jpg" in page.text
    assert "noise.jpg" not in page.text
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def page_of(folder, *items):
    return Page(write_report(items, folder).read_text("utf-8"))


def pictures(page):
    return [Image.open(io.BytesIO(base64.b64decode(img["src"].split(",")[1]))) for img in page.all("img")]


def test_a_picture_is_told_and_shown_with_and_without_its_evidence(tmp_path):
    item = picture("https://example.org/a.jpg")
    page = page_of(tmp_path / "new" / "folder", item)
    verdict = item.outcome.verdict
    for words in (
        "Signs of manipulation",
        verdict.reason,
        "https://example.org/a.jpg",
        verdict.media.sha256,
        "test, cpu",
    ):
        assert words in page.text
    assert [image.size for image in pictures(page)] == [(800, 600), (800, 600), (240, 240), (240, 240)]
    assert [attrs["type"] for attrs in page.all("input")] == ["checkbox"]
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["01-overlay.jpg", "report.html"]
    with Image.open(tmp_path / "new" / "folder" / "01-overlay.jpg") as beside:
        assert beside.size == (800, 600)


def whole(*faces, holes=()):
    verdict = still(*faces, survey=surveyed(*holes))
    kept = Kept(np.full((600, 800, 3), 128, np.uint8), 0)
    return ReportItem(Outcome(source="a.jpg", verdict=verdict), (kept,))


def test_inpainted_parts_are_shown_although_there_is_no_face(tmp_path):
    page = page_of(tmp_path, whole(holes=[(500, 300, 700, 420), (40, 460, 150, 560)]))
    for words in ("The parts that look inpainted", "Part 1: score >0.99, ", "Part 2: ", "0.95 or more counts"):
        assert words in page.text
    assert [image.size[0] for image in pictures(page)] == [800, 800, 240, 240]
    assert [attrs["type"] for attrs in page.all("input")] == ["checkbox"], "the corners can be taken away"
    assert "manipulated from 0.95" in page.text, "the scale is that of what decided"


def test_a_whole_picture_without_a_sign_shows_no_parts_but_says_that_it_was_looked_at(tmp_path):
    page = page_of(tmp_path, whole(scored(LOW)), picture(raw=LOW))
    assert page.text.count("looked at for inpainted parts, too") == 1
    assert "look inpainted" not in page.text
    assert "Blue corners" not in page.text


def test_many_parts_are_cut_short_and_counted(tmp_path):
    item = whole(holes=[(40, 40, 120, 120)])
    many = tuple(msgspec.structs.replace(item.outcome.verdict.regions[0]) for _ in range(9))
    verdict = msgspec.structs.replace(item.outcome.verdict, regions=many)
    page = page_of(tmp_path, ReportItem(Outcome(source="a.jpg", verdict=verdict), item.frames))
    assert "Part 6" in page.text
    assert "Part 7" not in page.text
    assert "And 3 more with lower scores." in page.text


@pytest.mark.parametrize("source", HOSTILE)
def test_hostile_words_stay_words(tmp_path, source):
    items = [
        picture(source, warnings=(source,), reason=source),
        failed(source, message=source),
        clip([HIGH] * 8, source),
    ]
    page = page_of(tmp_path, *items)
    assert page.text.count(source) >= 7  # cards, summary, reason, warning, message: all as they were given
    assert not page.all("script")
    assert all(attrs["href"].startswith("#item-") for attrs in page.all("a"))
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert {image["src"][:23] for image in page.all("img")} == {"data:image/jpeg;base64,"}


def test_the_page_loads_and_runs_nothing(tmp_path):
    html = write_report([picture(), clip([HIGH] * 8), failed()], tmp_path).read_text("utf-8")
    page = Page(html)
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not {"script", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in page.tags}
    assert not re.search(r"@import|url\((?!#hatch\))", html)
    assert all(attrs.get("href", "#").startswith("#") for _, attrs in page.tags)


def test_the_page_is_well_formed_with_unique_ids_and_named_pictures(tmp_path):
    page = page_of(tmp_path, picture(), clip([HIGH] * 4 + [LOW] * 4), failed(), picture(raw=0.5), picture(raw=LOW))
    assert not page.open
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    named = {name for _, attrs in page.tags for name in attrs.get("aria-labelledby", "").split()}
    assert named <= set(ids)
    assert all(image["alt"] for image in page.all("img"))
    assert all(attrs["for"] in ids for attrs in page.all("label"))


def test_a_failure_shows_code_and_advice_and_no_score(tmp_path):
    page = page_of(tmp_path, failed())
    assert "Could not be judged" in page.text
    assert "The server says that it is gone." in page.text
    assert "Error code gone. Trying again without a change will not help." in page.text
    assert not page.all("img")
    waits = page_of(tmp_path, failed(retryable=True, after=30.0))
    assert "may succeed later, in 30 s at the earliest" in waits.text


def test_no_score_draws_no_gauge(tmp_path):
    nothing = still()
    item = ReportItem(Outcome(source="hill.jpg", verdict=nothing), (Kept(np.zeros((80, 120, 3), np.uint8), 0),))
    page = page_of(tmp_path, item)
    assert nothing.reason in page.text
    assert not [attrs for attrs in page.all("svg") if attrs.get("class") == "gauge"]
    assert not page.all("input")  # nothing to switch between


def test_an_authentic_face_is_shown_without_a_map(tmp_path):
    page = page_of(tmp_path, picture(raw=LOW))
    assert [image.size for image in pictures(page)] == [(800, 600), (800, 600), (240, 240)]
    assert "strong" not in page.text


def test_several_sources_are_summed_up_first(tmp_path):
    page = page_of(tmp_path, picture("one.jpg"), failed("two.jpg"), picture("three.jpg", raw=LOW))
    assert "1 with signs of manipulation, 1 without a sign of manipulation, 1 could not be judged." in page.text
    assert [attrs["href"] for attrs in page.all("a")] == ["#item-1", "#item-2", "#item-3"]
    assert page.text.index("three.jpg") < page.text.index("This is evidence")
    assert "nav" not in {tag for tag, _ in page_of(tmp_path, picture()).tags}


def test_standard_input_has_a_name(tmp_path):
    assert "standard input" in page_of(tmp_path, picture("-")).text


def test_a_remembered_verdict_says_so_and_that_pictures_are_missing(tmp_path):
    verdict = msgspec.structs.replace(still(scored(HIGH)), cache=CacheInfo("near", distance=4, age_s=75.0))
    page = page_of(tmp_path, ReportItem(Outcome(source="a.jpg", verdict=verdict)))
    assert "near match, 4 bits apart, 1:15 old" in page.text
    assert "The pictures were not kept" in page.text


@pytest.mark.parametrize(
    ("by", "words"),
    [("url", "by its address, which was not asked again"), ("pixels", "by its pixels"), (None, "exact match")],
)
def test_a_remembered_verdict_says_what_was_the_same(tmp_path, by, words):
    verdict = msgspec.structs.replace(still(scored(HIGH)), cache=CacheInfo("exact", age_s=75.0, by=by))
    text = page_of(tmp_path, ReportItem(Outcome(source="a.jpg", verdict=verdict))).text
    assert f"{words}, 1:15 old" in text
    assert "very file" not in text


def test_a_video_shows_its_worst_frames_in_order_and_its_timeline(tmp_path):
    page = page_of(tmp_path, clip([LOW, LOW, LOW, HIGH, HIGH + 0.2, HIGH + 0.1, HIGH, LOW]))
    names = sorted(path.name for path in tmp_path.glob("*.jpg"))
    assert names == ["01-frame-004.jpg", "01-frame-005.jpg", "01-frame-006.jpg", "01-frame-007.jpg"]
    assert re.findall(r"\d:\d\d, score", page.text)[-4:] == [f"0:{t:02}, score" for t in (6, 8, 10, 12)]
    assert "Score over time, 8 frames in 0:32" in page.text
    assert "4 of 8 judged frames above the threshold for manipulated. Strongest from 0:06 to 0:12" in page.text


def test_high_frames_are_counted_as_such_in_a_video_that_stays_unclear():
    verdict = film(talking_head([LOW] * 11 + [1.6] * 5), 16)
    assert verdict.label is Label.INCONCLUSIVE
    assert timeline(verdict).description.startswith("5 of 16 judged frames above the threshold for manipulated.")


def test_a_crowd_is_cut_with_a_word_about_the_rest(tmp_path):
    verdict = still(*(scored(LOW, track=i) for i in range(20)))
    item = ReportItem(Outcome(source="crowd.jpg", verdict=verdict), (Kept(np.zeros((600, 800, 3), np.uint8), 0),))
    page = page_of(tmp_path, item)
    assert len([image for image in pictures(page) if image.size == (240, 240)]) == 12
    assert "And 8 more with lower scores." in page.text


def test_dots_of_the_timeline_stand_at_their_time_and_score():
    line = timeline(film([*talking_head([LOW, HIGH]), scored(LOW, frame=3)], 4))
    assert [dot.x for dot in line.dots] == [0.0, 6.25, 12.5, 18.75]  # of 32 s
    assert line.dots[2].y is None
    assert line.dots[1].y == pytest.approx(100 * (1 - 1 / (1 + np.exp(-HIGH))))
    assert line.dots[1].words == "0:02: score 0.98"
    assert line.marks[0] == (0.0, "0:00")


@pytest.mark.parametrize("duration_s", [0.4, 3.0, 59.0, 61.0, 600.0, 7200.0])
def test_time_marks_are_few_and_inside(duration_s):
    verdict = film(talking_head([LOW] * 2), 2)
    media = msgspec.structs.replace(verdict.media, duration_s=duration_s)
    frames = tuple(msgspec.structs.replace(f, time_s=0.1 * f.index / 50) for f in verdict.frames)
    marks = timeline(msgspec.structs.replace(verdict, media=media, frames=frames)).marks
    assert 1 <= len(marks) <= 7
    assert all(0 <= x <= 100 for x, _ in marks)


def test_a_still_has_no_timeline():
    assert timeline(still(scored(HIGH))) is None
