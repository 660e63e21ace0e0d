"""Text as it may be shown and kept: without credentials, and without characters that deceive."""

from __future__ import annotations

import os
import re

HIDDEN = "[hidden]"

# A secret shorter than this would blot out words that are none.
_SHORTEST_SECRET = 8
_IN_URL = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_ASSIGNED = re.compile(
    r"""((?:secret|token|passw|credential|signature|access_key|auth_string)[\w-]*['"]?\s*[=:]\s*)"""
    r"""['"]?[^&\s'",;]+""",
    re.IGNORECASE,
)
_SECRET_VARIABLE = re.compile(
    r"SECRET|TOKEN|PASSW|CREDENTIAL|AUTH_STRING|ACCESS_KEY|API_KEY|CONNECTION_URL"
)
# They name a place, not a secret.
_PLACES = ("_FILE", "_PATH", "_FOLDER", "_DIR", "_URI", "_EXPIRATION")


def redacted(text: str) -> str:
    """Return a text without the credentials in it.

    Hidden are what stands before ``@`` in a URL, the values of keys that are called secret, token,
    password and the like, and the values of the environment's variables of such names.

    >>> redacted("s3://key:value@bucket/a refused, aws_secret_access_key=abc")
    's3://[hidden]@bucket/a refused, aws_secret_access_key=[hidden]'
    """
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _holds_secret(name):
            text = text.replace(value, HIDDEN)
    return _ASSIGNED.sub(rf"\1{HIDDEN}", _IN_URL.sub(HIDDEN, text))


def one_line(text: str) -> str:
    r"""Return a text that stays on its line and reads as it is stored.

    Lines are joined. Characters that do not print are spelled out: a name could otherwise forge a
    line of a log, drive a terminal, or turn the order of what follows.

    >>> one_line("a\nb\x1b[2J") == r"a b\x1b[2J"
    True
    """
    lines = text.splitlines()
    joined = " ".join(filter(None, map(str.strip, lines))) if len(lines) > 1 else "".join(lines)
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in joined
    )


def _holds_secret(variable: str) -> bool:
    return bool(_SECRET_VARIABLE.search(variable)) and not variable.endswith(_PLACES)
