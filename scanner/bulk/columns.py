"""The columns of a list: what stands between them, what they are called, and which of them has the URLs.

In: a header, or the first rows. Out: names, none of them empty or there twice, and one that is chosen.
One reason: people's tables have no header, two columns of one name, or a column `link` full of words; whoever reads a
list and whoever follows one must see the same columns in it.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

NAMES: Final = ("url", "uri", "link", "href", "src", "source", "image_url", "img_url", "media_url", "video_url")
NAMES_BY_CHANCE: Final = ("image", "img", "picture", "photo", "video", "media", "file", "path", "filename", "filepath")
_URL = re.compile(r"\s*https?://", re.IGNORECASE)


class ListError(ValueError):
    """The list cannot be read, or is none."""


def delimiter_of(line: str, form: str) -> str:
    """What stands between the cells of a table."""
    return "\t" if form == "tsv" else max(",;\t|", key=lambda mark: (line.count(mark), mark == ","))


def has_url(cells: Iterable[str]) -> bool:
    """Whether this is a row, and no header."""
    return any(_URL.match(cell) for cell in cells)


def numbered_names(count: int) -> list[str]:
    """Of the columns of a table without a header."""
    return ["url"] if count == 1 else [f"column_{number}" for number in range(1, count + 1)]


def unique_names(head: Sequence[str], remarks: list[str]) -> list[str]:
    """Names of columns: none empty, none twice."""
    names: list[str] = []
    for at, cell in enumerate(head, 1):
        name, again = cell.strip() or f"column_{at}", 2
        while name in names:
            name, again = f"{cell.strip() or 'column'}_{again}", again + 1
        if cell.strip() and name != cell.strip():
            remarks.append(
                f"there are several columns {cell.strip()!r}; this one is {name!r} in the rows that come out"
            )
        names.append(name)
    return names


def choose_column(columns: Sequence[str], objects: Sequence[dict[str, object]], column: str | None, name: str) -> str:
    """The named column; else one whose name says so and that has URLs; else the one that has most; else a path's."""
    if column is not None:
        if column in columns:
            return column
        msg = f"{name} has no column {column!r}; its columns are {', '.join(columns) or 'none'}"
        raise ListError(msg)

    def urls(key: str) -> int:
        return sum(isinstance(value := cells.get(key), str) and bool(_URL.match(value)) for cells in objects)

    by_name = {key.strip().lower(): key for key in reversed(columns)}
    named = [by_name[known] for known in NAMES if known in by_name]
    for key in (*named, *sorted(columns, key=urls, reverse=True)):
        if urls(key):
            return key
    for key in (*named, *(by_name[known] for known in NAMES_BY_CHANCE if known in by_name)):
        return key
    if len(columns) == 1:
        return columns[0]
    msg = f"no column of {name} has URLs; its columns are {', '.join(columns)}; name one with --column"
    raise ListError(msg)
