"""Lists as people have them: every form, packing and encoding, and what is no list at all."""

import gzip
import json

import pytest

from scanner.bulk.columns import ListError
from scanner.bulk.lists import open_list

URL = "https://example.org/{}.jpg"


def read(path, **options):
    opened = open_list(str(path), **options)
    entries = list(opened.entries)
    opened.close()
    assert [entry.row for entry in entries] == list(range(1, len(entries) + 1))
    return opened, entries


def written(folder, name, data):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def sources(path, **options):
    return [entry.source for entry in read(path, **options)[1]]


TEXT = "# to be checked\nhttps://example.org/1.jpg\r\n\n  https://example.org/2.jpg  \nphotos/ä.jpg"
WANTED = [URL.format(1), URL.format(2), "photos/ä.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_text_in_any_encoding(tmp_path, encoding):
    assert sources(written(tmp_path, "list.txt", TEXT.encode(encoding))) == WANTED


def test_encodings_may_be_mixed_in_one_list(tmp_path):
    assert sources(written(tmp_path, "list.txt", "a/ä.jpg\n".encode() + "a/ö.jpg\n".encode("cp1252"))) == [
        "a/ä.jpg",
        "a/ö.jpg",
    ]


def test_packed_lists_by_content_not_by_name(tmp_path):
    assert sources(written(tmp_path, "list.txt", gzip.compress(TEXT.encode()))) == WANTED
    assert sources(written(tmp_path, "list.txt.gz", gzip.compress(TEXT.encode()))) == WANTED
    arrow = pytest.importorskip("pyarrow")
    with arrow.CompressedOutputStream(str(tmp_path / "list.csv.zst"), "zstd") as file:
        file.write(b"n,url\n1,https://example.org/1.jpg\n")
    assert sources(tmp_path / "list.csv.zst") == [URL.format(1)]


def test_list_cut_off_in_the_middle_gives_what_is_whole_then_says_so(tmp_path):
    lines = "".join(URL.format(json.dumps(n * 7919)) + "\n" for n in range(50_000))
    packed = gzip.compress(lines.encode())
    opened = open_list(str(written(tmp_path, "list.txt.gz", packed[: len(packed) // 2])))
    whole = []
    with pytest.raises(ListError, match="ends in the middle, after line"):
        whole.extend(opened.entries)
    opened.close()
    assert len(whole) > 100


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_csv_with_any_delimiter_and_quotes(tmp_path, mark):
    text = f'id{mark}link{mark}words\n1{mark}{URL.format(1)}{mark}"two\nlines{mark}"\n2{mark}{URL.format(2)}{mark}\n'
    opened, entries = read(written(tmp_path, "list.csv", text))
    assert [entry.source for entry in entries] == [URL.format(1), URL.format(2)]
    assert entries[0].extra == {"id": "1", "words": f"two\nlines{mark}"}
    assert opened.columns == ("id", "words")


def test_csv_without_a_header_and_with_ragged_rows(tmp_path):
    text = f"1,{URL.format(1)}\n2,{URL.format(2)},more\n3\n"
    _, entries = read(written(tmp_path, "list.csv", text))
    assert [(e.source, e.extra) for e in entries[:2]] == [
        (URL.format(1), {"column_1": "1"}),
        (URL.format(2), {"column_1": "2", "column_3": "more"}),
    ]
    assert "nothing in column" in entries[2].fault


def test_duplicate_columns_are_told_apart_and_told_about(tmp_path):
    opened, entries = read(written(tmp_path, "list.csv", f"note,url,note\na,{URL.format(1)},b\n"))
    assert entries[0].extra == {"note": "a", "note_2": "b"}
    assert "several columns 'note'" in opened.remarks[0]


def test_column_is_found_by_name_then_by_content_then_asked_for(tmp_path):
    path = written(tmp_path, "a.csv", f"page,image_url\nhttps://example.org/,{URL.format(1)}\n")
    assert sources(path) == [URL.format(1)]
    assert sources(path, column="page") == ["https://example.org/"]
    with pytest.raises(ListError, match="no column 'nope'; its columns are page, image_url"):
        read(path, column="nope")
    assert sources(written(tmp_path, "b.csv", f"a,b\nx,{URL.format(2)}\n")) == [URL.format(2)]
    assert sources(written(tmp_path, "c.csv", "id,path\n1,here.jpg\n")) == ["here.jpg"]
    with pytest.raises(ListError, match=r"no column .* has URLs; its columns are a, b; name one with --column"):
        read(written(tmp_path, "d.csv", "a,b\n1,2\n"))


def test_json_lines_and_what_is_none(tmp_path):
    lines = [json.dumps({"url": URL.format(1), "tags": [1, {"a": 2}]}), "{broken", json.dumps({"id": 3}), "", '"x.jpg"']
    _, entries = read(written(tmp_path, "list.jsonl", "\n".join(lines)))
    assert entries[0].extra == {"tags": [1, {"a": 2}]}
    assert "neither a JSON object" in entries[1].fault
    assert "nothing in column 'url'" in entries[2].fault
    assert entries[3].source == "x.jpg"


def test_empty_lists_are_empty(tmp_path):
    for name in ("list.txt", "list.csv", "list.jsonl"):
        assert sources(written(tmp_path, name, "")) == []
    assert sources(written(tmp_path, "head.csv", "id,url\n")) == []


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("list.txt", bytes(range(256)) * 9, "binary, not a list"),
        ("list.txt", b"x" * 1_100_000, "more than 1,000,000 characters"),
        ("list.jpg", b"\xff\xd8\xff\xe0" + bytes(300), "`laescan scan` judges it"),
        ("list.parquet", b"PAR1 but not really", "no Parquet"),
        ("list.txt.gz", b"\x1f\x8b\x08\x00broken", "damaged|ends in the middle"),
    ],
)
def test_what_is_no_list_is_refused_in_words(tmp_path, name, data, words):
    with pytest.raises(ListError, match=words):
        read(written(tmp_path, name, data))


def test_missing_and_forbidden_files_are_told_about(tmp_path):
    with pytest.raises(ListError, match=r"cannot read .*nothing.txt: No such file"):
        open_list(str(tmp_path / "nothing.txt"))


def test_folder_of_pictures_and_folder_of_parts(tmp_path):
    pictures = tmp_path / "pictures"
    (pictures / "deep").mkdir(parents=True)
    for name in ("b.jpg", "deep/a.jpg", ".hidden.jpg"):
        written(pictures, name, b"\xff\xd8\xff\xe0" + bytes(300))
    written(pictures, "readme.txt", "no picture")
    assert [path.removeprefix(str(pictures)) for path in sources(pictures)] == ["/b.jpg", "/deep/a.jpg"]
    parts = tmp_path / "parts"
    parts.mkdir()
    written(parts, "_SUCCESS", "")
    written(parts, "part-0.csv", f"n,url\n1,{URL.format(1)}\n")
    written(parts, "part-1.csv", f"n,url\n2,{URL.format(2)}\n")
    _, entries = read(parts)
    assert [(e.source, e.extra) for e in entries] == [(URL.format(1), {"n": "1"}), (URL.format(2), {"n": "2"})]
    (tmp_path / "void").mkdir()
    with pytest.raises(ListError, match="no file in"):
        open_list(str(tmp_path / "void"))


def test_large_lists_are_streamed(tmp_path):
    path = tmp_path / "list.txt"
    with path.open("w") as file:
        file.writelines(URL.format(n) + "\n" for n in range(200_000))
    opened = open_list(str(path))
    assert next(opened.entries).source == URL.format(0)
    opened.close()
