"""The page at / in a real browser: ask, watch, read the verdict; on a phone, by keyboard, with a token, in the dark."""

import asyncio
import io
import threading
from contextlib import contextmanager

import msgspec
import numpy as np
import pytest
import verdicts
from chromium import chromium
from PIL import Image
from playwright.sync_api import expect
from service import Running, serving

from api.tokens import Scope, Tokens
from scanner import wording
from scanner.contract import Failure, Label, Outcome
from scanner.pipeline import STAGES
from scanner.receipts import check, public_key
from scanner.service.ledger import ROW
from scanner.settings import Settings

FORGED = verdicts.still(verdicts.scored(verdicts.HIGH, warnings=("turned away",)))
FILM = verdicts.film(verdicts.talking_head([verdicts.LOW] * 6 + [verdicts.HIGH] * 4 + [verdicts.LOW] * 6))
PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
SECRET = '<img src=x onerror="document.title=1">'


def picture(shade):
    data = io.BytesIO()
    Image.fromarray(np.full((600, 800, 3), shade, np.uint8)).save(data, "JPEG")
    return data.getvalue()


class Loop:
    """An API in a thread with an event loop of its own; Playwright's is in the main one."""

    def __init__(self, settings):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.context = serving(settings)
        self.api: Running = self.do(self.context.__aenter__())

    def do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def scan(self, verdict=None, source="https://example.org/a.jpg", **artifacts):
        """A scan; with a verdict it has ended."""
        id_ = self.do(self.api.submit(source))
        if verdict:
            self.api.finish(id_, verdict, source=source, **artifacts)
        return id_

    def close(self):
        self.do(self.context.__aexit__(None, None, None))
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)
        self.loop.close()


@contextmanager
def loop_of(redis_url, folder, **options):
    loop = Loop(Settings(redis_url=redis_url, spool=str(folder), state=str(folder), **options))
    try:
        yield loop
    finally:
        loop.close()


@pytest.fixture(scope="module")
def served(redis_url, tmp_path_factory):
    with loop_of(redis_url, tmp_path_factory.mktemp("spool")) as loop:
        yield loop


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser, served):
    """A tab in which every error of a script, and every blocked load, fails the test; a missing picture does not."""
    with tab(browser, served.api.url) as opened:
        yield opened


@contextmanager
def tab(browser, url, **options):
    context = browser.new_context(base_url=url, **options)
    page, troubles = context.new_page(), []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on(
        "console",
        lambda message: message.type == "error" and "status of" not in message.text and troubles.append(message.text),
    )
    page.on("request", lambda request: request.url.startswith((url, "blob:")) or troubles.append(request.url))
    yield page
    context.close()
    assert troubles == []


def test_a_url_is_watched_from_the_queue_to_its_verdict(page, served):
    page.goto("/")
    page.get_by_label("Address").fill("https://example.org/watched.jpg")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("heading", name="Waiting")).to_be_visible()
    page.wait_for_url("**/#/scans/*")
    lease = served.api.begin(page.url.rpartition("/")[2])
    lease.progress("fetch", 40.0)
    expect(page.get_by_role("heading", name="Fetching")).to_be_visible()
    lease.progress("score", None)
    expect(page.get_by_role("heading", name="Looking at faces")).to_be_visible()
    expect(page.locator("li[aria-current=step]")).to_have_text("Looking at faces")
    served.api.draw(lease, overlay_jpg=picture(90), plain_jpg=picture(200))
    lease.finish(Outcome(source="https://example.org/watched.jpg", verdict=FORGED), served.api.service.settings)
    expect(page.get_by_role("heading", name="Signs of manipulation")).to_be_focused()
    expect(page.get_by_text(FORGED.reason)).to_be_visible()
    expect(page.locator(".person")).to_contain_text("manipulated, score 0.98")
    expect(page.locator(".gauge")).to_have_attribute(
        "aria-label", "Score 0.98 on a scale from 0 to 1; authentic up to 0.30, manipulated from 0.80."
    )
    expect(page).to_have_title("Signs of manipulation – laescan")
    over = page.locator(".picture .over")
    expect(over).to_have_js_property("naturalWidth", 800)  # once it is decoded
    page.get_by_text("Show the evidence on the picture").click()
    expect(over).to_have_css("opacity", "0")


def test_a_link_shows_the_same_scan_and_its_report(page, served):
    id_ = served.scan(FORGED, "https://example.org/linked.jpg", report_html=b"<p>the report", overlay_jpg=picture(90))
    page.goto(f"/#/scans/{id_}")
    expect(page.get_by_text("https://example.org/linked.jpg")).to_be_visible()
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Open report").click()
    expect(opened.value.get_by_text("the report")).to_be_visible()


def test_a_receipt_is_saved_that_the_servers_key_checks(page, served):
    id_ = served.scan(FORGED, "https://example.org/signed.jpg")
    page.goto(f"/#/scans/{id_}")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save receipt").click()
    assert saved.value.suggested_filename == f"receipt-{id_}.json"
    key = public_key(page.request.get("/v1/key").body())
    assert check(saved.value.path().read_bytes(), [key])[0].verdict == FORGED


def test_a_dropped_file_is_uploaded_and_shown_while_it_waits(page, served):
    page.goto("/")
    data = picture(120)
    page.locator("#file").set_input_files({"name": "mine.jpg", "mimeType": "image/jpeg", "buffer": data})
    expect(page.get_by_role("heading", name="Waiting")).to_be_visible()
    page.wait_for_url("**/#/scans/*")
    expect(page.get_by_text("mine.jpg")).to_be_visible()
    expect(page.get_by_alt_text("The file you chose")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Could not be judged")).to_be_visible()
    with page.expect_response("**/v1/scans?rescan=true") as sent:
        page.get_by_role("button", name="Scan again").click()
    assert sent.value.status == 202, "the same file, without asking for it, and not from memory"
    page.wait_for_url(f"**/#/scans/{sent.value.json()['id']}")
    expect(page.get_by_role("heading", name="Waiting")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Could not be judged")).to_be_visible()


def test_what_is_asked_last_counts(page, served):
    id_ = served.scan(FORGED, "https://example.org/quick.jpg")
    page.goto("/")
    uploads = []
    # never answered, as a large file on a slow line
    page.route("**/v1/scans", lambda request: uploads.append(request))  # noqa: PLW0108 - Playwright marks it
    chosen = {"name": "slow.jpg", "mimeType": "image/jpeg", "buffer": picture(121)}
    page.locator("#file").set_input_files(chosen)
    expect(page.get_by_role("heading", name="Sending")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="Sending")).to_be_hidden()
    page.locator("#file").set_input_files(chosen)
    expect(page.get_by_role("heading", name="Sending")).to_be_visible()
    page.evaluate("id => { location.hash = `#/scans/${id}`; }", id_)
    expect(page.get_by_role("heading", name="Signs of manipulation")).to_be_visible()
    assert [request.request.failure for request in uploads] == ["net::ERR_ABORTED"] * 2


def test_what_is_kept_no_longer_is_not_offered(page, served):
    id_ = served.scan(FORGED, "https://example.org/old.jpg")  # its report and pictures are gone
    page.goto(f"/#/scans/{id_}")
    expect(page.get_by_role("button", name="Save receipt")).to_be_visible()
    expect(page.get_by_role("link", name="Open report")).to_have_count(0)
    served.do(served.api.service.redis.delete(f"{ROW}{id_}"))
    page.get_by_role("button", name="Save receipt").click()
    expect(page.get_by_text("The server does not have it any more.")).to_be_visible()


def test_a_video_has_a_timeline_that_can_be_read_aloud(page, served):
    page.goto(f"/#/scans/{served.scan(FILM, 'https://example.org/film.mp4')}")
    expect(page.locator(".time .dot-manipulated")).to_have_count(4)
    expect(page.locator(".time .dot-authentic")).to_have_count(12)
    expect(page.locator(".time")).to_have_attribute(
        "aria-label",
        "Score over time, 16 frames in 0:32. 4 of 16 judged frames above the threshold for manipulated. "
        "Strongest from 0:12 to 0:18, score 0.98.",
    )


def test_a_failure_says_why_and_shows_no_score(page, served):
    id_ = served.scan(None, "https://example.org/gone.jpg")
    lease = served.api.begin(id_)
    failure = Failure(code="gone", message="the page is gone (404)", retryable=False)
    lease.finish(Outcome(source="https://example.org/gone.jpg", failure=failure), served.api.service.settings)
    page.goto(f"/#/scans/{id_}")
    expect(page.get_by_role("heading", name="Could not be judged")).to_be_visible()
    expect(page.get_by_text("the page is gone (404)")).to_be_visible()
    expect(page.locator(".gauge")).to_have_count(0)


def test_what_strangers_wrote_stays_text(page, served):
    id_ = served.scan(
        msgspec.structs.replace(FORGED, reason=SECRET, warnings=(SECRET,)),
        "https://example.org/" + SECRET.replace(" ", "+"),
    )
    page.goto(f"/#/scans/{id_}")
    expect(page.locator(".notes li")).to_have_text(SECRET)
    assert page.locator("img[src=x]").count() == 0
    expect(page).to_have_title("Signs of manipulation – laescan")


def test_mistakes_are_said_beside_the_field(page):
    page.goto("/")
    for typed, words in (("", "Give an address first"), ("not an address", "That is not an address of the web")):
        page.get_by_label("Address").fill(typed)
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text(words)
    page.goto(f"/#/scans/{'0' * 32}")
    expect(page.get_by_role("alert").last).to_contain_text("No such scan")


def test_the_keyboard_alone_is_enough(page, served):
    id_ = served.scan(
        FORGED, "https://example.org/keys.jpg", report_html=b"<p>", overlay_jpg=picture(90), plain_jpg=picture(200)
    )
    page.goto(f"/#/scans/{id_}")
    expect(page.locator("#headline")).to_be_focused()
    expect(page.locator("#peek")).to_be_visible()  # it comes with the picture
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    assert reached[:6] == ["peek", "How this was judged", "Open report", "Save receipt", "Copy link", "Scan again"]
    page.locator("#peek").focus()
    page.keyboard.press("Space")
    expect(page.locator(".picture .over")).to_have_css("opacity", "0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_without_scrolling_sideways(browser, served, scheme):
    still = served.scan(FORGED, "https://example.org/" + "long" * 60, overlay_jpg=picture(90), plain_jpg=picture(200))
    film = served.scan(FILM, f"https://example.org/phone-{scheme}.mp4")
    with tab(browser, served.api.url, color_scheme=scheme, **PHONE) as page:
        for path, shown in (
            ("/", "#url"),
            (f"/#/scans/{still}", ".person"),
            (f"/#/scans/{film}", ".time"),
            ("/docs", ".endpoint"),
        ):
            page.goto(path)
            expect(page.locator(shown).first).to_be_visible()
            for width in (360, 320):
                page.set_viewport_size({"width": width, "height": 844})
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (path, width)


def test_where_a_token_is_needed_the_page_asks_for_it_once(browser, redis_url, tmp_path):
    with loop_of(redis_url, tmp_path, access="token") as served, tab(browser, served.api.url) as page:
        token, _ = served.do(Tokens(served.api.service.redis).create(Scope.SUBMIT, tenant="desk"))
        page.goto("/")
        page.get_by_label("Address").fill("https://example.org/guarded.jpg")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.get_by_label("Token", exact=True).fill(token)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Waiting")).to_be_visible()
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("heading", name="Could not be judged")).to_be_visible()
        expect(page.get_by_role("dialog")).to_be_hidden()


def test_the_pages_words_and_numbers_are_wordings(page):
    page.goto("/")
    told = page.evaluate(
        """async ([scores, times, verdict, part]) => {
            const words = await import('/assets/words.js');
            return {headlines: words.HEADLINES, stages: words.STEPS.flatMap((step) => step.stages),
                    numbers: scores.map(words.number), clocks: times.map(words.clock),
                    moments: times.map((t) => words.moment(verdict, t)),
                    labels: scores.map((s) => words.labelOf(s, verdict)),
                    beside: scores.map((s) => words.labelOf(s, part))};
        }""",
        [SCORES, TIMES_S, msgspec.to_builtins(SHORT), msgspec.to_builtins(PART)],
    )
    assert {label.value: words for label, words in wording.HEADLINES.items()}.items() <= told["headlines"].items()
    assert set(told["stages"]) == {"send", "queued", *STAGES}
    assert told["numbers"] == [wording.number(score) for score in SCORES]
    assert told["clocks"] == [wording.clock(time_s) for time_s in TIMES_S]
    assert told["moments"] == [wording.moment(SHORT, time_s) for time_s in TIMES_S]
    assert told["labels"] == [wording.label_of(score, SHORT).value for score in SCORES]
    assert told["beside"] == [wording.label_of(score, PART).value for score in SCORES]
    assert Label.MANIPULATED not in told["beside"], "a region made it so, and no face"


SCORES = [0, 0.004, 0.01, 0.126, 0.3, 0.31, 0.5, 0.79, 0.8, 0.985, 0.99, 0.9901, 1]
TIMES_S = [0, 0.04, 0.96, 7.25, 19.99]
SHORT = verdicts.film(
    verdicts.talking_head([0.0] * 6), 6, media=msgspec.structs.replace(verdicts.VIDEO, duration_s=12.0)
)
assert SHORT.label is not Label.NO_FACE
PART = verdicts.still(verdicts.scored(0.5), survey=verdicts.surveyed((500, 300, 700, 420)))
assert PART.label is Label.MANIPULATED
