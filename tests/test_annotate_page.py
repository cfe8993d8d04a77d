"""The annotator's page in a real Chromium: what hands and keys do, what then lies on disk, who can use it."""

import io
import itertools

import annotating
import cv2
import numpy as np
import pytest
from annotating import HEIGHT, WIDTH, mask_of
from chromium import chromium
from PIL import Image
from playwright.sync_api import Error, expect

from scanner.training import candidates
from scanner.training.candidates import Source

SCALE = 8  # CSS pixels per pixel of these small pictures: the most that fitting enlarges
BRUSH = 8  # px: what the page begins with for pictures of this size
Y, X = np.mgrid[:HEIGHT, :WIDTH] + 0.5


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def folder(tmp_path):
    return annotating.make(tmp_path / "candidates")


@pytest.fixture
def address(folder):
    with annotating.serving(folder) as address:
        yield address


@pytest.fixture
def visit(browser, address):
    """Open the page in a window of one's own; whatever the console complains of fails the test."""
    contexts, complaints = [], []

    def open_page(path="", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 760}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(address + path)
        page.wait_for_selector("html[data-open]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def page(visit):
    return visit()


def place(page, x, y):
    """Where a place of the picture is in the window, while the picture is fitted."""
    box = page.locator("#canvas").bounding_box()
    scale = min((box["width"] - 32) / WIDTH, (box["height"] - 32) / HEIGHT, SCALE)
    left, top = box["x"] + (box["width"] - WIDTH * scale) / 2, box["y"] + (box["height"] - HEIGHT * scale) / 2
    return left + x * scale, top + y * scale


def drag(page, *points, button="left"):
    page.mouse.move(*place(page, *points[0]))
    page.mouse.down(button=button)
    for point in points[1:]:
        page.mouse.move(*place(page, *point), steps=2)
    page.mouse.up(button=button)


def saved(page, folder, name="0001"):
    """The mask on disk once the page says so; it says `saving` before the input event is over."""
    page.wait_for_selector("#saved[data-state=saved]")
    return mask_of(folder, name)


def line(ax, ay, bx, by):
    """Distance of every pixel's centre to a line."""
    t = np.clip(((X - ax) * (bx - ax) + (Y - ay) * (by - ay)) / max((bx - ax) ** 2 + (by - ay) ** 2, 1), 0, 1)
    return np.hypot(X - ax - t * (bx - ax), Y - ay - t * (by - ay))


def assert_stroke(mask, distance, diameter=BRUSH):
    """All of the stroke and nothing else, but for a fifth of a pixel at its edge."""
    assert mask[distance < diameter / 2 - 0.2].all()
    assert not mask[distance > diameter / 2 + 0.2].any()


def seen(page):
    """The colour that stands on the screen at the middle of every pixel of the picture (H, W, 3)."""
    page.mouse.move(5, 5)  # the outline of the pen is no part of it
    page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")  # as is the page
    screen = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), int)
    (x0, y0), (x1, y1) = place(page, 0.5, 0.5), place(page, WIDTH - 0.5, HEIGHT - 0.5)
    xs, ys = np.linspace(x0, x1, WIDTH).round().astype(int), np.linspace(y0, y1, HEIGHT).round().astype(int)
    return screen[np.ix_(ys, xs)]


def seen_anew(page, before):
    """The same once it has changed: a layer is fetched when it is asked for."""
    for _ in range(200):
        if (now := seen(page)).tolist() != before.tolist():
            return now
        page.wait_for_timeout(50)
    pytest.fail("nothing has changed on the screen")


# ---------------------------------------------------------------- drawing


def test_what_is_painted_is_what_is_seen_and_what_lies_on_disk(page, folder):
    drag(page, (20.5, 20.5), (60.5, 30.5))
    mask = saved(page, folder)
    assert_stroke(mask, line(20.5, 20.5, 60.5, 30.5))
    with_mask = seen(page)
    page.keyboard.press("v")
    tinted = np.abs(with_mask - seen(page)).max(axis=2) > 8
    assert (tinted == mask).all()
    assert candidates.read_sources(folder) == {"0001": Source.HUMAN}


def test_a_mask_outlives_next_previous_and_reload(page, folder):
    drag(page, (20.5, 20.5), (60.5, 20.5))
    page.get_by_role("button", name="Next").click()
    page.wait_for_selector("html[data-open='0002']")
    drag(page, (50.5, 40.5), (52.5, 44.5))
    page.get_by_role("button", name="Previous").click()
    page.wait_for_selector("html[data-open='0001']")
    first, second = saved(page, folder), mask_of(folder, "0002")
    before = seen(page)
    page.reload()
    page.wait_for_selector("html[data-open='0001']")
    assert (seen(page) == before).all()
    expect(page.locator("#count")).to_have_text("2 of 3 done")
    assert_stroke(first, line(20.5, 20.5, 60.5, 20.5))
    assert_stroke(second, line(50.5, 40.5, 52.5, 44.5))


def test_the_eraser_takes_away_and_undo_brings_back(page, folder):
    drag(page, (20.5, 32.5), (70.5, 32.5))
    before = saved(page, folder)
    page.keyboard.press("e")
    drag(page, (45.5, 20.5), (45.5, 45.5))
    cut = saved(page, folder)
    assert_stroke(before & ~cut | (line(45.5, 20.5, 45.5, 45.5) < 4) & ~before, line(45.5, 20.5, 45.5, 45.5))
    assert not (cut & ~before).any()
    page.keyboard.press("Control+z")
    assert (saved(page, folder) == before).all()
    page.get_by_role("button", name="Redo").click()
    assert (saved(page, folder) == cut).all()
    for _ in range(2):
        page.get_by_role("button", name="Undo").click()
    assert saved(page, folder) is None
    expect(page.locator("#undo")).to_have_attribute("aria-disabled", "true")


def test_a_box_covers_every_pixel_that_it_touches(page, folder):
    page.get_by_role("button", name="Box").click()
    drag(page, (70.5, 40.5), (10.5, 5.5))
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[5:41, 10:71] = True
    assert (saved(page, folder) == expected).all()


def test_a_polygon_is_closed_as_one_likes(page, folder):
    corners = [(10.5, 10.5), (80.5, 14.5), (60.5, 55.5), (50.5, 20.5)]
    outline = np.array(corners, np.float32)
    inside = np.array([cv2.pointPolygonTest(outline, at, measureDist=True) for at in zip(X.flat, Y.flat, strict=True)])
    inside = inside.reshape(X.shape)
    endings = {
        "first corner": lambda: page.mouse.click(*place(page, 10.9, 10.9)),
        "enter": lambda: page.keyboard.press("Enter"),
        "double click": lambda: page.mouse.dblclick(*place(page, *corners[-1])),
    }
    page.keyboard.press("g")
    for ending in endings.values():
        for corner in corners:
            page.mouse.click(*place(page, *corner))
        ending()
        mask = saved(page, folder)
        assert mask[inside > 0.3].all()
        assert not mask[inside < -0.3].any()
        page.keyboard.press("Delete")
        assert saved(page, folder) is None


def test_a_polygon_can_be_drawn_around_in_one_go_and_taken_back(page, folder):
    page.keyboard.press("g")
    page.mouse.click(*place(page, 5, 5))
    page.mouse.click(*place(page, 50, 5))
    page.keyboard.press("Backspace")
    page.keyboard.press("Escape")
    turn = np.linspace(0, 2 * np.pi, 20)
    drag(page, *[(48 + 20 * np.cos(t), 32 + 20 * np.sin(t)) for t in turn])
    mask = saved(page, folder)
    distance = np.hypot(X - 48, Y - 32)
    assert mask[distance < 18].all()
    assert not mask[distance > 21].any()


def test_the_right_button_erases_and_brush_size_counts(page, folder):
    page.locator("#size").fill("30")
    drag(page, (48.5, 32.5), (49.5, 32.5))
    assert_stroke(saved(page, folder), line(48.5, 32.5, 49.5, 32.5), 30)
    page.keyboard.press("[")
    expect(page.locator("#px")).to_have_text("24 px")
    drag(page, (48.5, 32.5), (49.5, 32.5), button="right")
    mask = saved(page, folder)
    assert not mask[line(48.5, 32.5, 49.5, 32.5) < 11.8].any()
    assert mask[(line(48.5, 32.5, 49.5, 32.5) > 12.2) & (line(48.5, 32.5, 49.5, 32.5) < 14.8)].all()


def test_a_brush_of_one_pixel_paints_the_pixel_under_the_pen(page, folder):
    page.locator("#size").fill("1")
    page.mouse.click(*place(page, 30.9, 20.1))
    assert [tuple(at) for at in np.argwhere(saved(page, folder))] == [(20, 30)]


def test_after_zooming_and_moving_the_pen_still_hits(page, folder):
    x, y = place(page, 30.5, 20.5)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -300)
    expect(page.locator("#scale")).not_to_have_text("800 %")
    page.keyboard.down("Space")  # the pen has the focus once it was used
    page.keyboard.up("Space")
    page.mouse.click(x, y)
    assert_stroke(saved(page, folder), line(30.5, 20.5, 30.5, 20.5))
    page.keyboard.down("Space")
    page.mouse.down()
    page.mouse.move(x + 60, y + 40, steps=3)
    page.mouse.up()
    page.keyboard.up("Space")
    page.keyboard.press("Delete")
    page.mouse.click(x + 60, y + 40)
    assert_stroke(saved(page, folder), line(30.5, 20.5, 30.5, 20.5))
    page.keyboard.press("0")
    expect(page.locator("#scale")).to_have_text("800 %")


def test_a_finger_draws_and_two_fingers_zoom(visit, folder):
    page = visit(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    touch = page.context.new_cdp_session(page)

    def fingers(kind, *points):
        at = [dict(zip("xy", place(page, *point), strict=True), id=i) for i, point in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    fingers("touchStart", (20, 32))
    fingers("touchMove", (70, 32))
    fingers("touchEnd")
    before = saved(page, folder)
    assert_stroke(before, line(20, 32, 70, 32), BRUSH + 0.5)  # a touch is counted in whole CSS pixels
    scale = page.locator("#scale").text_content()
    fingers("touchStart", (40, 20))
    fingers("touchStart", (40, 20), (56, 20))
    fingers("touchMove", (30, 20), (66, 20))
    fingers("touchEnd")
    expect(page.locator("#scale")).not_to_have_text(scale)
    page.keyboard.press("PageDown")
    page.wait_for_selector("html[data-open='0002']")
    assert (saved(page, folder) == before).all()


def test_zooming_with_two_fingers_leaves_the_polygon_under_way(visit, folder):
    page = visit(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    touch, before = page.context.new_cdp_session(page), place(page, 0, 0)
    page.keyboard.press("g")
    for corner in [(10, 10), (80, 10), (80, 50)]:
        page.touchscreen.tap(*place(page, *corner))
    two = [{"x": before[0] + 50 * i, "y": before[1] + 50, "id": i} for i in (1, 2)]
    for kind, points in (("touchStart", two[:1]), ("touchStart", two), ("touchMove", two), ("touchEnd", [])):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    page.keyboard.press("n")  # closes what has an area and keeps it
    page.wait_for_selector("html[data-open='0002']")
    mask = saved(page, folder)
    assert mask[(X > 12) & (X < 78) & (Y > 12) & (Y < 10 + (X - 10) * 4 / 7 - 2)].all()
    assert not mask[(Y > 10 + (X - 10) * 4 / 7 + 2) | (Y < 8)].any()


# ---------------------------------------------------------------- layers


def test_map_and_difference_are_toggles_and_one_at_a_time(page):
    plain = seen(page)
    page.keyboard.press("m")
    mapped = seen_anew(page, plain)
    changed, diagonal = np.abs(mapped - plain).max(axis=2), np.abs(X / WIDTH - Y / HEIGHT)
    assert changed[diagonal < 0.01].min() > 40, "the map is the diagonal"
    assert changed[diagonal > 0.5].max() < 40
    page.locator("[data-layer=difference]").click()
    expect(page.locator("[data-layer=attention]")).to_have_attribute("aria-pressed", "false")
    without_map = seen_anew(page, mapped)
    changed = np.abs((without_map if (without_map != plain).any() else seen_anew(page, plain)) - plain).max(axis=2)
    assert changed[annotating.forged_part()].min() > 40
    assert changed[~annotating.forged_part() & (X < 46)].max() < 60
    page.keyboard.press("d")
    assert (seen(page) == plain).all()


def test_the_original_can_be_seen_instead(page):
    fake = seen(page)
    page.keyboard.press("o")
    inner = annotating.forged_part() & (np.abs(X - 64) < 14) & (np.abs(Y - 32) < 14)
    assert np.abs((fake - seen_anew(page, fake))[inner] - 60).max() <= 2


def test_a_mask_may_begin_from_the_difference(page, folder):
    page.keyboard.press("a")
    page.wait_for_selector("#saved[data-state=saved]")
    assert (saved(page, folder) == annotating.forged_part()).all()


def test_what_a_picture_lacks_is_off(visit):
    page = visit("#0003")
    expect(page.locator("[data-layer=difference]")).to_have_attribute("aria-disabled", "true")
    page.keyboard.press("a")
    expect(page.locator("#said")).to_have_text("There is no original to compare with.")


# ---------------------------------------------------------------- going through


def test_an_automatic_mask_is_human_once_it_was_looked_at_and_kept(visit, folder):
    candidates.write_mask(folder, "0001", annotating.forged_part())
    page = visit("#0001")
    expect(page.locator("#note")).to_contain_text("Made by a rule")
    page.keyboard.press("n")
    page.wait_for_selector("html[data-open='0002']")
    assert (saved(page, folder) == annotating.forged_part()).all()
    assert candidates.read_sources(folder) == {"0001": Source.HUMAN}


def test_it_begins_at_the_first_without_a_mask_and_ends_when_all_are_done(visit, folder):
    candidates.write_mask(folder, "0001", annotating.forged_part(), Source.HUMAN)
    page = visit()
    page.wait_for_selector("html[data-open='0002']")
    page.keyboard.press("s")
    page.wait_for_selector("html[data-open='0003']")
    page.keyboard.press("n")
    expect(page.locator("#said")).to_contain_text("last one")
    drag(page, (20, 20), (30, 30))
    page.keyboard.press("n")
    expect(page.get_by_role("dialog", name="All done")).to_contain_text("2 masks, 1 skipped.")
    expect(page.locator("#count")).to_have_text("3 of 3 done, 1 skipped")
    page.wait_for_selector("#saved[data-state=saved]")
    assert candidates.read_sources(folder) == {"0001": "human", "0002": "skipped", "0003": "human"}


def test_all_of_it_works_by_keyboard_alone(page, folder):
    names = []
    while page.evaluate("document.activeElement.id") != "canvas":
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.ariaLabel"))
    assert names[:6] == ["Help and shortcuts", "Brush", "Eraser", "Polygon", "Box", "Move the picture"]
    page.keyboard.press("r")
    page.keyboard.press("Space")  # from the middle, (48, 32)
    for key in ["ArrowRight"] * 10 + ["Shift+ArrowDown"] * 5:
        page.keyboard.press(key)
    page.keyboard.press("Space")
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[32:38, 48:59] = True
    assert (saved(page, folder) == expected).all()
    page.keyboard.press("b")
    page.keyboard.press("Space")
    expect(page.locator("#said")).to_have_text("Pen down")
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Space")
    both = saved(page, folder)
    assert (both == expected | (line(58.5, 37.5, 38.5, 37.5) <= BRUSH / 2)).all()
    page.keyboard.press("g")
    for way in ("ArrowUp", "ArrowLeft", "ArrowDown"):
        page.keyboard.press("Space")
        for _ in range(12):
            page.keyboard.press(way)
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    page.wait_for_selector("html[data-open='0002']")
    assert (saved(page, folder) == both).all(), "a dropped polygon leaves nothing"


def test_help_lists_the_keys_and_can_turn_letters_off(page):
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="How to mark")
    shown = dialog.locator("dt").all_text_contents()
    keys = page.locator("[aria-keyshortcuts]").evaluate_all("all => all.map(e => e.getAttribute('aria-keyshortcuts'))")
    assert {k.replace("Control", "Ctrl").replace("+", "") for k in keys if k != "[ ]"} <= {
        s.replace(" ", "") for s in shown
    }
    page.get_by_label("Shortcuts of a single letter").uncheck()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.keyboard.press("e")
    expect(page.locator("[data-tool=brush]")).to_have_attribute("aria-pressed", "true")


# ---------------------------------------------------------------- when things go wrong


def test_a_save_that_fails_is_told_and_tried_again(browser, address, folder):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector("html[data-open]")
        page.route("**/masks/*", lambda route: route.abort())
        drag(page, (20.5, 20.5), (60.5, 20.5))
        expect(page.locator("#saved")).to_contain_text("Not saved")
        assert mask_of(folder, "0001") is None
        page.unroute("**/masks/*")
        expect(page.locator("#saved")).to_have_text("Saved", timeout=20_000)
        assert_stroke(mask_of(folder, "0001"), line(20.5, 20.5, 60.5, 20.5))


def test_leaving_with_something_unsaved_asks_first(browser, address):
    with browser.new_context() as context:
        page, asked = context.new_page(), []
        page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
        page.goto(address)
        page.wait_for_selector("html[data-open]")
        page.route("**/masks/*", lambda route: route.abort())
        drag(page, (20.5, 20.5), (60.5, 20.5))
        page.close(run_before_unload=True)
        page.wait_for_event("close") if not page.is_closed() else None
        assert asked == ["beforeunload"]


# ---------------------------------------------------------------- for everyone

WINDOWS = {
    "desktop": (1280, 760),
    "small": (1024, 600),
    "phone": (360, 640),
    "phone across": (740, 360),
    "least phone": (320, 640),
}

CONTRAST = """() => {
  const parse = (c) => { const v = c.match(/[\\d.]+/g).map(Number); return [v[0], v[1], v[2], v[3] ?? 1] };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const worst = [];
  for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!text || !node.checkVisibility() || node.closest("[aria-disabled=true], noscript, .unseen")) continue;
    let behind = [255, 255, 255], opacity = 1;
    for (let e = node; e; e = e.parentElement) opacity *= Number(getComputedStyle(e).opacity);
    for (let e = node; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour[3] === 1) { behind = colour; break }
    }
    const ink = parse(getComputedStyle(node).color).slice(0, 3);
    const front = ink.map((v, i) => v * opacity + behind[i] * (1 - opacity));
    const [a, b] = [light(front), light(behind)].sort((x, y) => y - x);
    worst.push([(a + 0.05) / (b + 0.05), node.outerHTML.slice(0, 80)]);
  }
  return worst.sort((a, b) => a[0] - b[0]).slice(0, 3);
}"""


CUT_OFF = """() => [...document.querySelectorAll("body > :not(dialog) :is(button, input, label, p, progress)")]
  .filter((e) => e.checkVisibility() && !e.matches(".unseen, .said"))
  .filter((e) => { const b = e.getBoundingClientRect(); return b.left < 0 || b.right > innerWidth + 0.5 })
  .map((e) => e.outerHTML.slice(0, 80))"""


def test_words_can_be_read_and_nothing_is_cut_off(page):
    drag(page, (20, 20), (30, 30))
    page.wait_for_selector("#saved[data-state=saved]")
    for (window, (width, height)), scheme in itertools.product(WINDOWS.items(), ("light", "dark")):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        for dialog in (False, True):
            (ratio, where), *_ = page.evaluate(CONTRAST)
            assert ratio >= 4.5, (window, scheme, dialog, where)  # WCAG 2.2, 1.4.3
            page.keyboard.press("Escape" if dialog else "?")
        canvas = page.locator("#canvas").bounding_box()
        assert min(canvas["width"], canvas["height"]) >= 150, window
        assert page.evaluate(CUT_OFF) == [], window
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), window


def test_everything_has_a_name_and_is_large_enough_for_a_finger(visit):
    page = visit(viewport={"width": 390, "height": 780}, has_touch=True, is_mobile=True)
    found = page.locator("button:visible, input:visible, [tabindex='0']:visible, progress").all()
    assert len(found) > 20
    for control in found:
        assert control.evaluate("e => e.ariaLabel || e.labels?.[0]?.textContent.trim() || e.textContent.trim()")
        if control.evaluate("e => e.matches('button')"):
            box = control.bounding_box()
            assert min(box["width"], box["height"]) >= 34, control.evaluate("e => e.outerHTML")
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1
    assert page.locator("main").count() == 1


def test_the_page_may_load_and_run_nothing_else(browser, address):
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector("html[data-open]")
        with pytest.raises(Error, match="TrustedHTML"):
            page.evaluate("document.body.innerHTML += '<b>x</b>'")
        load = """new Promise((done) => {
          addEventListener("securitypolicyviolation", (event) => done(event.effectiveDirective));
          document.body.append(Object.assign(new Image(), { src: "http://127.0.0.1:1/x.png" }));
        })"""
        assert page.evaluate(load) == "img-src"
