"""Several small files in one answer: what ``grep . FILE...`` prints.

One command reads them all, so that sudo has one fixed line to allow. Empty lines are lost.
"""

from __future__ import annotations


def by_file(text: str) -> dict[str, str]:
    """The content of each file that was there, by its path; an empty file is not told."""
    lines: dict[str, list[str]] = {}
    for line in text.splitlines():
        path, colon, content = line.partition(":")
        if colon and path.startswith("/"):
            lines.setdefault(path, []).append(content)
    return {path: "\n".join(content) + "\n" for path, content in lines.items()}
