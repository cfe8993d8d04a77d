"""Lists that never end: a growing file, and feeds of every kind, hostile ones too."""

import asyncio
import json

import pytest
from bulk_site import Site, picture
from origin import ALLOWED, Origin
from test_bulk import QUICK, Glimpse, rows_of

from scanner.bulk.columns import ListError
from scanner.bulk.follow import Feed, follow_file
from scanner.bulk.links import links_in
from scanner.bulk.lists import LONGEST_LINE, open_list
from scanner.bulk.plan import Plan
from scanner.bulk.run import run
from scanner.settings import Settings

RSS = b"""<rss xmlns:media="http://search.yahoo.com/mrss/"><channel><link>https://a.example/</link>
<item><link>https://a.example/1</link><enclosure url="https://a.example/1.jpg" type="image/jpeg"/></item>
<item><link>https://a.example/2</link><media:content url="https://a.example/2.mp4"/></item>
<item><link>https://a.example/3</link></item></channel></rss>"""
ATOM = b"""<feed xmlns="http://www.w3.org/2005/Atom"><link href="https://a.example/"/>
<entry><link href="https://a.example/1"/><link rel="enclosure" href="https://a.example/1.jpg"/></entry></feed>"""
SITEMAP = b"""<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"
 xmlns:image="http://www.google.com/schemas/sitemap-image/1.1"><url><loc>https://a.example/1</loc>
<image:image><image:loc>https://a.example/1.jpg</image:loc></image:image></url></urlset>"""
INDEX = b"<sitemapindex><sitemap><loc>https://a.example/more.xml</loc></sitemap></sitemapindex>"


def linked(data, longest=8_192):
    return asyncio.run(links_in(data, longest))


def test_feeds_name_their_media_and_else_their_pages():
    assert linked(RSS)[0] == [
        ("https://a.example/1.jpg", "https://a.example/1"),
        ("https://a.example/2.mp4", "https://a.example/2"),
        ("https://a.example/3", "https://a.example/3"),
    ]
    assert linked(ATOM)[0] == [("https://a.example/1.jpg", "https://a.example/1")]
    assert linked(SITEMAP)[0] == [("https://a.example/1.jpg", "https://a.example/1")]
    assert linked(INDEX) == ([], ["https://a.example/more.xml"])


@pytest.mark.parametrize("data", [b"<rss>", b"no xml", b'<!DOCTYPE r [<!ENTITY a "b">]><rss>&a;</rss>'])
def test_what_is_no_feed_is_refused(data):
    with pytest.raises(ListError):
        linked(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<a>" * 2_000, "inside each other"),  # an element of some hundred bytes for each three
        (b'<a xmlns="' + b"x" * 2_000 + b'">' + b"<b/>" * 10, "namespace"),  # written before each name
        (b'<!DOCTYPE a [<!ATTLIST b c CDATA "xxx">]><a><b/></a>', "no feed needs"),  # given to each element
    ],
)
def test_few_bytes_that_become_many_are_refused(data, words):
    with pytest.raises(ListError, match=words):
        linked(data)


def test_an_element_keeps_no_more_text_than_a_url_may_have():
    """40 MB of lines; joined one by one they would be days of work, and this test would never end."""
    (url, page), *_ = linked(
        b"<rss><item><link>\n  " + b"https://a.example/\n" * 2_000_000 + b"</link></item></rss>", 100
    )[0]
    assert (len(url), url) == (101, page)
    assert linked(b'<rss><item><enclosure url="%b"/></item></rss>' % (b"x" * 5_000), 100)[0] == [("x" * 101, "")]


def test_a_large_feed_is_read_beside_the_event_loop_and_let_go_of_when_cancelled():
    async def read():
        reading, turns = asyncio.create_task(links_in(b"<rss>" + b"<item/>" * 1_000_000 + b"</rss>", 100)), 0
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
            if turns == 5:
                reading.cancel()
        return reading.cancelled()

    assert asyncio.run(read())


def test_half_a_line_is_waited_for(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a.jpg\nb.j")
    lines = follow_file(path).entries
    assert next(lines).source == "a.jpg"
    assert next(lines) is None
    with path.open("a") as file:
        file.write('pg\n{"url": "c.jpg", "n": 1}\n{broken\n')
    assert [next(lines).source for _ in range(2)] == ["b.jpg", "c.jpg"]
    assert "no JSON" in next(lines).fault
    lines.close()


def test_a_growing_table_gives_its_columns_and_waits_for_whole_rows(tmp_path):
    path = tmp_path / "posts.csv"
    path.touch()
    with pytest.raises(ListError, match="no line yet"):
        follow_file(path)
    path.write_text('id;url;note;note\n1;a.jpg;x;y\n2;b.jpg;"two\n')
    opened = follow_file(path)
    assert opened.columns == ("id", "note", "note_2")
    assert next(opened.entries).extra == {"id": "1", "note": "x", "note_2": "y"}
    assert next(opened.entries) is None
    with path.open("a") as file:
        file.write('lines";y;surplus\n\n3\n')
    whole, short = next(opened.entries), next(opened.entries)
    assert (whole.source, whole.extra["note"]) == ("b.jpg", "two\nlines")
    assert short.fault == "row 3 has nothing in column 'url'"
    opened.entries.close()


QUOTED = (
    'url,size\nhttp://a/1.jpg,27" tv\nhttp://a/2.jpg,x\nhttp://a/3.jpg,32" tv\n,\n'
    'http://a/4.jpg,"two\n\nlines, ""said"" he"\nhttp://a/5.jpg,"odd"" one" more "\nhttp://a/6.jpg,""\nhttp://a/7.jpg,"\n"\n'
)


def test_a_growing_table_has_the_rows_that_the_same_table_has_when_it_stands_still(tmp_path):
    """Inch marks are no quotes, and a cell may have lines: row for row as the other reader says."""
    path = tmp_path / "tvs.csv"
    path.write_text(QUOTED)
    still = [(entry.row, entry.source, entry.extra) for entry in open_list(str(path)).entries]
    assert len(still) == 7
    for cut in range(len("url,size\n"), len(QUOTED), 7):  # written in two pieces, wherever the first one ends
        path.write_text(QUOTED[:cut])
        entries = follow_file(path).entries
        found = list(iter(lambda entries=entries: next(entries), None))
        with path.open("a") as file:
            file.write(QUOTED[cut:])
        found += iter(lambda entries=entries: next(entries), None)
        entries.close()
        assert [(entry.row, entry.source, entry.extra) for entry in found] == still


def test_a_quote_that_nobody_closes_costs_a_row_and_not_the_rest_of_the_table(tmp_path):
    path = tmp_path / "tvs.csv"
    path.write_text('url,size\na.jpg,"27\n' + 99 * ("x" * 9_999 + "\n") + "x" * 9_999 + "\nb.jpg,2\n")
    entries = follow_file(path).entries
    lost, found = next(entries), next(entries)
    assert ("1,000,000" in lost.fault, lost.row) == (True, 1)
    assert (found.source, found.row, next(entries)) == ("b.jpg", 2, None)
    entries.close()


@pytest.mark.parametrize("name", ["list.txt", "list.csv", "list.jsonl"])
def test_a_line_without_an_end_is_a_row_with_a_fault_and_no_memory(tmp_path, name):
    path = tmp_path / name
    path.write_text('url\n{"url": "' + "x" * (3 * LONGEST_LINE))
    entries = follow_file(path).entries
    found = list(iter(lambda: next(entries), None))
    assert ["1,000,000" in entry.fault for entry in found][-1:] == [True]
    assert max(len(entry.source) for entry in found) <= 200
    with path.open("a") as file:
        file.write("xxx\nb.jpg\n")
    assert (next(entries).source, next(entries)) == ("b.jpg", None)
    entries.close()


def test_what_cannot_be_followed_is_refused_in_words(tmp_path):
    for name in ("list.parquet", "list.txt.gz"):
        (tmp_path / name).touch()
        with pytest.raises(ListError, match="cannot grow"):
            follow_file(tmp_path / name)
    (tmp_path / "list.csv").write_text("id,who\n")
    with pytest.raises(ListError, match="--column"):
        follow_file(tmp_path / "list.csv")
    (tmp_path / "bare.csv").write_text("1,https://example.org/1.jpg\n")
    assert next(follow_file(tmp_path / "bare.csv").entries).source == "https://example.org/1.jpg"


async def followed(plan, count, then=lambda: None):
    """Run until so many rows are there, do something, run until twice as many are; then stop it as Ctrl-C does."""
    import os  # noqa: PLC0415
    import signal  # noqa: PLC0415

    running = asyncio.create_task(run(plan, Settings(**QUICK), model=Glimpse()))
    async with asyncio.timeout(60):
        for wanted in (count, 2 * count):
            while not plan.out.exists() or plan.out.read_bytes().count(b"\n") < wanted:
                assert not running.done() or await running
                await asyncio.sleep(0.05)
            then()
        os.kill(os.getpid(), signal.SIGINT)
        return await running


def test_growing_file_and_feed_are_followed(tmp_path):
    with Site({f"{number}.jpg": picture(number) for number in range(4)}) as site:
        path = tmp_path / "list.txt"
        path.write_text(site.url("0.jpg") + "\n")

        def grow():
            with path.open("a") as file:
                file.write(site.url("1.jpg") + "\n")

        plan = Plan(source=str(path), out=tmp_path / "out.jsonl", follow_s=1.0)
        summary = asyncio.run(followed(plan, 1, grow))
        assert not summary.finished
        assert [row["code"] for row in rows_of(plan.out).values()][:2] == [None, None]

        def feed(*numbers):
            items = "".join(f'<item><enclosure url="{site.url(f"{n}.jpg")}"/></item>' for n in numbers)
            site.pictures["feed.xml"] = f"<rss><channel>{items}</channel></rss>".encode()

        feed(2)
        plan = Plan(source=site.url("feed.xml"), out=tmp_path / "feed.jsonl", follow_s=0.2)
        asyncio.run(followed(plan, 1, lambda: feed(3, 2)))
        rows = rows_of(plan.out)
        assert [json.dumps(rows[n]["source"])[-7:-1] for n in (1, 2)] == ["/2.jpg", "/3.jpg"]


# ---------------------------------------------------------------- what a feed's server says about it


def tagged(origin, path, *versions):
    """Serve one version after the other; who names the version that he has hears 304 once, and then the next."""
    left = list(enumerate(versions))

    async def answer(writer, headers):
        number, body = left[0]
        if headers.get("if-none-match") == f'"{number}"':
            writer.write(f'HTTP/1.1 304 Not Modified\r\nETag: "{number}"\r\n\r\n'.encode())
        else:
            head = f'HTTP/1.1 200 OK\r\nETag: "{number}"\r\nContent-Length: {len(body)}\r\n\r\n'
            writer.write(head.encode() + body)
        if len(left) > 1 and headers.get("if-none-match"):
            left.pop(0)

    origin.routes[path] = answer
    return origin.url(path)


def index(*addresses):
    named = "".join(f"<sitemap><loc>{address}</loc></sitemap>" for address in addresses)
    return f"<sitemapindex>{named}</sitemapindex>".encode()


def sitemap(*names):
    return "".join(
        ["<urlset>", *(f"<url><loc>https://a.example/{name}</loc></url>" for name in names), "</urlset>"]
    ).encode()


def first_of(feed, count, known=()):
    """The first entries that a feed gives, each judged as soon as it is there; out: their last names."""
    known = set(known)

    async def watch():
        watching, found = asyncio.create_task(feed.watch()), []
        async with asyncio.timeout(20):
            for entry in feed.entries(known.__contains__):
                if entry is None:
                    await asyncio.sleep(0.005)
                    continue
                known.add(entry.source)
                found.append(entry.source.rpartition("/")[2])
                if len(found) == count:
                    break
        watching.cancel()
        await asyncio.wait([watching])
        return found

    return asyncio.run(watch())


@pytest.fixture
def origin():
    serving = Origin()
    yield serving
    serving.close()


def feed_at(address):
    return Feed(address, Settings(allow_networks=ALLOWED), every_s=0.01)


def test_an_index_that_stays_the_same_hides_no_new_picture_of_its_sitemaps(origin):
    more = tagged(origin, "/more.xml", sitemap("1.jpg"), sitemap("1.jpg", "2.jpg"))
    assert first_of(feed_at(tagged(origin, "/index.xml", index(more))), 2) == ["1.jpg", "2.jpg"]


def test_a_sitemap_that_is_broken_does_not_hide_the_next_one(origin):
    more = tagged(origin, "/more.xml", sitemap("1.jpg"))
    address = tagged(origin, "/index.xml", index(origin.url("/nowhere.xml"), more))
    assert first_of(feed_at(address), 1) == ["1.jpg"]


def test_what_could_not_be_read_is_asked_for_again_though_it_has_not_changed(origin):
    half = iter([sitemap("1.jpg")[:-5]])

    async def answer(writer, headers):
        if "if-none-match" in headers:
            writer.write(b"HTTP/1.1 304 Not Modified\r\n\r\n")
        else:
            writer.write(b'HTTP/1.1 200 OK\r\nETag: "0"\r\n\r\n' + next(half, sitemap("1.jpg")))

    origin.routes["/feed.xml"] = answer
    assert first_of(feed_at(origin.url("/feed.xml")), 1) == ["1.jpg"]


def test_a_feed_that_is_watched_for_long_remembers_no_more_than_it_names(origin):
    feed = feed_at(tagged(origin, "/feed.xml", *(sitemap(f"{n}.jpg", f"{n + 1}.jpg") for n in range(30))))
    assert first_of(feed, 25) == [f"{n}.jpg" for n in range(25)]
    assert len(feed._under_way) <= 2
