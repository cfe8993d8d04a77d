"""Parquet in and out, and zstd: the one file that names pyarrow, an optional extra.

In: a path. Out: rows as dicts, a batch at a time; or the other way round, one row group at a time.
One reason: pyarrow is 50 MB that most users never need, so whoever does gets it with `laescan[bulk]` and is told so.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

GROUP_ROWS: Final = 10_000
_BATCH_ROWS: Final = 1_000
_TYPES: Final = {int: "int64", float: "float64", bool: "bool", str: "string"}


class NoParquetError(ImportError):
    """pyarrow is not installed."""


class ParquetError(ValueError):
    """The file is no Parquet, or it is damaged."""


def _arrow() -> Any:  # noqa: ANN401 - a module without types
    try:
        import pyarrow.parquet  # noqa: PLC0415 - optional, and a quarter of a second
    except ImportError as error:
        msg = "Parquet and .zst need pyarrow: pip install 'laescan[bulk]'"
        raise NoParquetError(msg) from error
    return pyarrow


def open_zst(file: BinaryIO) -> BinaryIO:
    """The bytes inside a zstd stream; raises NoParquetError."""
    opened = _arrow().CompressedInputStream(file, "zstd")
    return cast("BinaryIO", io.BufferedReader(_Raw(opened), 1 << 16))


class _Raw(io.RawIOBase):
    """pyarrow's stream as Python's own readers want it."""

    def __init__(self, stream: Any) -> None:  # noqa: ANN401 - a class without types
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - as in io
        try:
            data = self._stream.read(len(buffer))
        except OSError as error:
            raise EOFError(str(error)) from error  # as gzip says that it was cut off
        buffer[: len(data)] = data
        return len(data)


def columns_of(path: Path) -> list[str]:
    """The names of a file's columns; raises ParquetError."""
    return list(_opened(path).schema_arrow.names)


def read(path: Path) -> Iterator[dict[str, object]]:
    """The rows of a file, streamed; raises ParquetError."""
    arrow = _arrow()
    try:
        for batch in _opened(path).iter_batches(batch_size=_BATCH_ROWS):
            names, columns = batch.schema.names, [_cells(column) for column in batch.columns]
            for values in zip(*columns, strict=True):
                yield dict(zip(names, values, strict=True))
    except (arrow.ArrowException, OSError) as error:
        msg = f"{path} cannot be read to its end: {error}"
        raise ParquetError(msg) from error


def _cells(column: Any) -> list[object]:  # noqa: ANN401 - a class without types
    """Values as Python has them; text that is no UTF-8, which some writers let through, with its bytes escaped."""
    try:
        values: list[object] = column.to_pylist()
    except UnicodeDecodeError:
        texts: list[bytes | None] = column.cast("large_binary").to_pylist()
        values = [None if text is None else text.decode("utf-8", "backslashreplace") for text in texts]
    return values


def _opened(path: Path) -> Any:  # noqa: ANN401 - a class without types
    arrow = _arrow()
    try:
        return arrow.parquet.ParquetFile(path)
    except (arrow.ArrowException, OSError) as error:
        msg = f"{path} is no Parquet that we read: {error}"
        raise ParquetError(msg) from error


def write(path: Path, rows: Iterable[Mapping[str, object]], types: Sequence[tuple[str, type]]) -> None:
    """Write rows under these columns, each of one type (int, float, bool, str) or null."""
    arrow = _arrow()
    schema = arrow.schema(
        [(name, getattr(arrow, _TYPES[kind])() if kind is not bool else arrow.bool_()) for name, kind in types]
    )
    rows = iter(rows)
    with arrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        while group := list(islice(rows, GROUP_ROWS)):
            writer.write_table(arrow.Table.from_pylist(group, schema=schema))
