"""What every page is made of: one HTML file that needs no other file, no script and no network.

Every text from outside that goes into a page is escaped by the templates, whoever writes one;
what goes into a table of Prefect's pages by :func:`markdown`.
"""

from __future__ import annotations

import base64
import html
import json
import re
from functools import cache
from math import prod
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from tomoseg.report.summary import count_noun, counts, course, describe_grid, readable


def rendered(template: str, **values: Any) -> str:
    """Return what a file of ``templates`` makes of some values, which are not yet escaped."""
    return _templates().get_template(template).render(values)


def data_url(jpeg: bytes) -> str:
    """Return the address of an image that is the JPEG itself."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"


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


@cache
def _templates() -> Environment:
    """Return the templates: all text is escaped, and a name that nobody gave is an error."""
    environment = Environment(
        loader=PackageLoader("tomoseg.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,  # a service that is updated while it runs keeps to its own
    )
    words = (
        counts,
        course,
        data_url,
        describe_grid,
        duration,
        link,
        count_noun,
        plain,
        prod,
        readable,
    )
    environment.filters |= {one.__name__: one for one in words}
    return environment
