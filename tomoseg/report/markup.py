"""What every page is made of: one HTML file that needs no other file, no script and no network.

Every text from outside that goes into a page, or into a table of Prefect's pages, is escaped here,
in :func:`escaped`, :func:`link` and :func:`markdown`, and nowhere else.
"""

from __future__ import annotations

import base64
import html
import json
import re
from importlib.resources import files
from typing import Any
from urllib.parse import quote


def document(title: str, body: str, *, styles: tuple[str, ...] = ("page.css",)) -> str:
    """Return a whole HTML document.

    Parameters
    ----------
    title
        Not yet escaped.
    body
        Markup.
    styles
        Files of this package, in the order in which they apply.
    """
    folder = files(__package__)
    rules = "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in styles)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escaped(title)}</title>
<style>
{rules}</style>
</head>
<body>
{body}
</body>
</html>
"""


def section(title: str, body: str, *, kind: str) -> str:
    """Put entries under a title, if there are any."""
    return f'<h2>{title}</h2>\n<div class="{kind}">\n{body}</div>' if body else ""


def tally(boxes: list[tuple[str, str, str]]) -> str:
    """Return a row of boxes of (kind, value, label): the few numbers to see first."""
    items = "".join(
        f'<li class="{escaped(kind)}"><b>{escaped(value)}</b>{escaped(label)}</li>'
        for kind, value, label in boxes
    )
    return f'<ul class="tally">{items}</ul>'


def swatch(colour: str) -> str:
    """Return a small square of a colour, ``"#rrggbb"``."""
    return f'<span class="swatch" style="background:{colour}"></span>'


def jpeg(picture: bytes, *, alternative: str) -> str:
    """Return an image with the bytes of a JPEG in it."""
    code = base64.b64encode(picture).decode("ascii")
    return f'<img alt="{escaped(alternative)}" src="data:image/jpeg;base64,{code}">'


def plain(value: Any) -> str:
    """Return text as it is and anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def duration(seconds: float) -> str:
    """Return a time in words.

    >>> [duration(value) for value in (0.04, 4.21, 72.4, 3599.7, 5000)]
    ['0.0 s', '4.2 s', '1 min 12 s', '1 h 0 min', '1 h 23 min']
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def escaped(value: str) -> str:
    """Escape text for an element or a quoted attribute."""
    return html.escape(value, quote=True)


def markdown(value: str) -> str:
    r"""Escape text for a cell of a Markdown table: it cannot be markup, nor end the cell.

    >>> print(markdown("a|b <img src=x> [c](d_e)"))
    a\|b &lt;img src=x&gt; \[c\](d\_e)
    """
    escapes = re.sub(r"([\\`*_{}\[\]|~!])", r"\\\1", " ".join(value.split()))
    return html.escape(escapes, quote=False)


def link(path: str) -> str:
    """Return a path as a relative link.

    The dot in front keeps a path such as ``//host/x`` or ``javascript:x`` from leaving the folder.
    """
    return "./" + quote(path, safe="/")
