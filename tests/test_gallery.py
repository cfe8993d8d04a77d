"""The page about a list: what it counts, where it says to look first, what it says of pictures it never had."""

import re

import pytest
from bulk_site import Site, picture
from test_bulk import scan_list

from scanner.bulk.rows import OutputError

PICTURES = {f"{number}.jpg": picture(number) for number in range(12)}


@pytest.fixture(scope="module")
def site():
    with Site(PICTURES) as opened:
        yield opened


def lines(site):
    return [*(site.url(name) for name in PICTURES), site.url("0.jpg"), site.url("<b>nowhere"), "no/such/file.jpg"]


def figures_of(html):
    """What is said below each picture: words, score, row."""
    found = re.findall(r'class="state">([\w ]+), ([\d.<> ]+)</span> · row (\d+)', html)
    return [(words, float(score), int(row)) for words, score, row in found]


def test_the_page_says_how_much_where_to_look_and_what_failed_in_which_row(site, tmp_path):
    summary, rows = scan_list(tmp_path, lines(site), report=tmp_path / "report")
    html = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    marked = {n: row for n, row in rows.items() if row["label"] in {"manipulated", "inconclusive"} and n != 13}
    seen = figures_of(html)
    assert {row for _, _, row in seen} == set(marked)
    assert [score for _, score, _ in seen] == sorted((score for _, score, _ in seen), reverse=True)
    drawn = set(re.findall(r'<img src="(\w+\.jpg)"', html))
    assert drawn == {path.name for path in (tmp_path / "report").glob("*.jpg")}
    assert len(drawn) == len(marked)
    counted = dict(re.findall(r'class="state">([\w ]+)</span></td><td class="n">(\d+)<', html))
    assert int(counted["Could not be judged"]) == summary.counts["gone"] == 2
    assert int(counted["Inconclusive"]) == summary.counts["inconclusive"]
    assert re.findall(r"row </span>(\d+)</td>", html) == ["14", "15"]
    assert re.findall(r"<b (?:class=\"late\" )?style=\"left: ([\d.]+)%", html) == ["20.0", "80.0"]  # its thresholds
    assert "<b>nowhere" not in html


def test_a_page_asked_for_afterwards_names_rows_whose_pixels_are_gone(site, tmp_path):
    _, rows = scan_list(tmp_path, lines(site))
    scan_list(tmp_path, None, report=tmp_path / "report")
    html = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    seen = figures_of(html)
    assert seen
    assert html.count("no picture was kept") == len(seen)
    assert all(abs(rows[row]["score"] - score) < 0.006 for _, score, row in seen)
    assert "Nothing in this list was called" not in html


def test_an_empty_list_has_a_page_too(tmp_path):
    scan_list(tmp_path, [], report=tmp_path / "report")
    html = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "No source has a score." in html
    assert "Nothing in this list was called" in html


def test_a_page_that_cannot_be_written_is_told_of_and_the_rows_are_there(site, tmp_path):
    scan_list(tmp_path, lines(site)[:2])
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match=r"the report .*taken/report cannot be written"):
        scan_list(tmp_path, None, report=tmp_path / "taken" / "report")
    (tmp_path / "report" / "report.html").mkdir(parents=True)
    with pytest.raises(OutputError, match="cannot be written"):
        scan_list(tmp_path, None, report=tmp_path / "report")
    assert scan_list(tmp_path, None)[0].rows == 2
