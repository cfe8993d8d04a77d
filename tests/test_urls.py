import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api import scans
from scanner.cache import urls
from scanner.settings import Settings

PLAIN = st.from_regex(urls._PLAIN, fullmatch=True)
ODD = st.from_regex(re.compile(r"[hH]ttps?://([A-Za-z0-9.:@\[\]-]|xn--){1,12}[/?#]?[\x00-\x7fé]{0,12}"), fullmatch=True)


@given(PLAIN | ODD)
@example("https://example.org/a?")
@example("https://example.org//a/./../b?x=%zz")
@example("http://xn--a/")
@example(f"http://{64 * 'a'}.org/")
def test_what_is_taken_at_a_glance_is_what_reading_its_parts_gives(url):
    quick = urls.canonical_url(url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urls, "is_plain", lambda _url: False)
        assert urls.canonical_url(url) == quick
        patch.setattr(scans, "is_plain", lambda _url: False)
        if urls._PLAIN.fullmatch(url):
            assert scans.clean_url(url, Settings()) == url


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org",
        "https://EXAMPLE.org/",
        "https://a@example.org/",
        "https://example.org:443/",
        "https://example.org/a b",
        "https://example.org/#a",
        "https://example.org/é",
        "https://example.org/a\n",
        "ftp://example.org/",
        "https://[::1]/",
        "https://a..b/",
    ],
)
def test_what_needs_a_closer_look_is_not_plain(url):
    assert not urls.is_plain(url)


def test_most_urls_are_plain():
    assert urls.is_plain("https://cdn.example-site.co.uk/img/2024/A_b-c.d~e/1.jpg?w=640&h=480&s=%2Fx,y;z=(1)")
