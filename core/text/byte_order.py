"""Text files that begin with a byte order mark, such as those that spreadsheets write."""

from __future__ import annotations

import codecs
from pathlib import Path

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16's, with which it begins
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def as_utf8(data: bytes) -> bytes:
    """Return text in UTF-8, whatever its byte order mark says it was in.

    >>> as_utf8("ö".encode("utf-16")) == as_utf8("ö".encode("utf-8-sig")) == "ö".encode()
    True
    """
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            text = data.removeprefix(mark)
            return text if encoding == "utf-8" else text.decode(encoding, "replace").encode()
    return data


def begins_with_mark(path: Path) -> bool:
    """Return whether a file begins with a byte order mark."""
    with path.open("rb") as file:
        return file.read(4).startswith(tuple(_BYTE_ORDER_MARKS))
