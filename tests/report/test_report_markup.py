"""Templates of pages: text stays text, and what is missing is no blank."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from jinja2 import UndefinedError

from tomoseg.report.markup import rendered

TEMPLATES = {item.name: item.read_text("utf-8") for item in
             (files("tomoseg.report") / "templates").iterdir()}  # fmt: skip


def test_text_is_escaped_where_nobody_asked_for_it():
    page = rendered("document.html", headline="<b>'&\"", boxes=[('"x', "{{ 7 * 7 }}", "&amp;")])
    assert "<h1>&lt;b&gt;&#39;&amp;&#34;</h1>" in page
    assert '<li class="&#34;x"><b>{{ 7 * 7 }}</b>&amp;amp;</li>' in page


def test_a_value_that_nobody_gave_is_an_error():
    with pytest.raises(UndefinedError, match="boxes"):
        rendered("document.html", headline="a")


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_takes_text_for_markup(name):
    assert not re.search(r"\bsafe\b|autoescape|Markup", TEMPLATES[name])


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_attribute_with_a_value_from_outside_is_quoted(name):
    """Escaping keeps a text inside quotes, and nowhere else."""
    assert not re.search(r"=\s*\{\{", TEMPLATES[name])
