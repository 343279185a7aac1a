"""Several small files in one answer: what ``grep . FILE...`` prints.

One command reads them all, so that sudo has one fixed line to allow. Empty lines are lost.
"""

from __future__ import annotations

from opsd.text import shortened

SHOWN_CHARACTERS = 80


def by_file(text: str) -> dict[str, str]:
    """The content of each file that was there, by its path; an empty file is not told.

    Raises:
        ValueError: a line belongs to no file, as where one of them is no text.
    """
    lines: dict[str, list[str]] = {}
    for line in text.splitlines():
        path, colon, content = line.partition(":")
        if colon and path.startswith("/"):
            lines.setdefault(path, []).append(content)
        elif line.strip():
            raise ValueError(f"a line of no file: {shortened(line, SHOWN_CHARACTERS)}")
    return {path: "\n".join(content) + "\n" for path, content in lines.items()}
