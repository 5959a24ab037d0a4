"""Remove credentials from what is shown or stored: URLs, command lines, configs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "…"
"""Stands where a secret value stood."""

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_URL = re.compile(
    # a password may hold what ends a URL elsewhere; a comma may stand between two URLs
    rf"({_SCHEME})((?:(?:(?!://)[^\s\"])*@)?(?:(?!{_SCHEME})[^\s'\"<>|\\^`])*)"
)
_NO_SCHEME = re.compile(r"^[^\s/@]*:[^\s@]*@")
_SECRET_NAMES = re.compile(
    r"(?:^|[_.-])(?:authorization|cookie|pass(?:word|wd|phrase)?|secrets?|token|credentials?"
    r"|api[_-]?keys?|apikey|access[_-]?key|private[_-]?key|session)$",
    re.IGNORECASE,
)
"""Names whose value is a secret. `max_tokens` is none, and `api_key_env` names a variable."""


def redact(text: str) -> str:
    """Cut user, password, query and fragment out of every URL in `text`.

    >>> redact("ask https://me:secret@host:8000/v1?key=secret#x twice")
    'ask https://host:8000/v1 twice'
    """
    return _URL.sub(lambda found: found[1] + _without_credentials(found[2]), text)


def redact_value(value: Any, name: str = "") -> Any:
    """Copy plain JSON values without credentials.

    Every text is redacted as by `redact`, and what a mapping holds under a name such as `password`,
    `authorization` or `x-api-key` is replaced by `HIDDEN`; null stays null.

    Args:
        value: mappings, lists and scalars, nested as they may be.
        name: what `value` is called where it stands.
    """
    if isinstance(value, Mapping):
        return {key: redact_value(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_value(item, name) for item in value]
    if value is not None and _SECRET_NAMES.search(name):
        return HIDDEN
    if isinstance(value, str):
        if not name.endswith("url"):
            return redact(value)
        scheme, mark, rest = value.partition("://")
        return scheme + mark + _without_credentials(rest) if mark else _NO_SCHEME.sub("", value)
    return value


def _without_credentials(rest: str) -> str:
    """Cut credentials, query and fragment from what follows `://` in a URL."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority and "@" in rest and ":" in authority and not _port(authority):
        rest = rest.rpartition("@")[2]  # a password with an unquoted slash, ? or #
    else:
        rest = authority.rpartition("@")[2] + rest[len(authority) :]
    return re.split(r"[?#]", rest, maxsplit=1)[0]


def _port(authority: str) -> bool:
    """Tell whether a port follows the last colon, or an address of version 6 ends there."""
    return authority.rpartition(":")[2].isdigit() or authority.endswith("]")
