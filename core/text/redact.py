"""Remove credentials from what is shown or stored: URLs, keys, command lines, configs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "…"
"""Stands where a secret value stood."""

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,30}://"
_URL = re.compile(
    # a password may hold what ends a URL elsewhere; a comma may stand between two URLs
    rf"({_SCHEME})((?:(?:(?!://)[^\s\"])*@)?(?:(?!{_SCHEME})[^\s'\"<>|\\^`])*)"
)
_NO_SCHEME = re.compile(r"^/*[^/@:]*:.*@")
_PORT = re.compile(
    r"(invalid port:? |port could not be cast to integer value as )(['\"]).*?\2", re.IGNORECASE
)
"""What libraries take for a port in an address whose password has an unquoted slash."""
_SECRET = (
    r"(?:authorization|cookie|pass(?:word|wd|phrase)?|pwd|secrets?|token|credentials?|bearer"
    r"|api[_-]?keys?|(?:access|private|secret|account)[_-]?key|session)"
)
_SECRET_NAMES = re.compile(rf"(?:^|[_.-]){_SECRET}$", re.IGNORECASE)
"""Names whose value is a secret. `max_tokens` is none, and `api_key_env` names a variable."""
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")
_KEY = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    # of OpenAI and Anthropic, Groq, xAI, GitHub, GitLab, Perplexity, Cerebras, NVIDIA, Slack
    r"(?:sk[-_]|gsk_|xai-|gh[opsu]_|github_pat_|glpat-|pplx-|csk-|nvapi-|tgp_v1_|xox[abeprs]-)"
    r"(?=[A-Za-z_-]{0,99}\d)[A-Za-z0-9_-]{10,}"
    r"|(?:hf|r8)_(?:(?=[A-Za-z]*\d)[A-Za-z0-9]{10,}|[A-Za-z0-9]{30,})"  # Hugging Face, Replicate
    r"|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{20,}|(?:AKIA|ASIA)[A-Z0-9]{12,}"  # Google, AWS
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}[A-Za-z0-9_.-]*"  # a JSON web token
    r")(?![A-Za-z0-9_])"
)
"""Keys that their providers' marks tell from other words."""
_AFTER_NAME = re.compile(
    r"((?:\bbearer|\bbasic)\s+|(?:api[_-]?key|password|passwd|secret|authorization|access[_-]?token)"
    r"[\"']?\s*[:=]\s*[\"']?(?:bearer\s+|basic\s+)?)(?=[^\s\"',;}]{0,99}\d)[^\s\"',;}]{6,}",
    re.IGNORECASE,
)
"""A value with a digit in it after a name of secrets, or after the word for a kind of them."""
_NAME_THEN_VALUE = re.compile(rf"{_SECRET}[\"']?\s*:", re.IGNORECASE)
VARIABLE = re.compile(r"(?!(?=.*\d)[A-Z0-9]{16})[A-Z_][A-Z0-9_]{0,99}")
"""Name of an environment variable in capitals; many letters and digits in one word are a key."""


def redact(text: str) -> str:
    """Cut credentials out of `text`: user, password, query and fragment of URLs, and keys.

    >>> redact("ask https://me:secret@host:8000/v1?key=secret#x twice")
    'ask https://host:8000/v1 twice'
    >>> redact("with api_key: 4fQ9xK27 or sk-proj-4fQ9xK27")
    'with api_key: … or …'
    """
    text = _URL.sub(lambda found: found[1] + _without_credentials(found[2]), text)
    text = _PORT.sub(rf"\1{HIDDEN}", text)
    return _AFTER_NAME.sub(rf"\1{HIDDEN}", _KEY.sub(HIDDEN, text))


def redact_value(value: Any, name: str = "") -> Any:
    """Copy plain JSON values without credentials.

    Every text is redacted as by `redact`, and what a mapping holds under a name such as `password`,
    `authorization` or `x-api-key` is replaced by `HIDDEN`; null stays null.

    Args:
        value: mappings, lists and scalars, nested as they may be.
        name: what `value` is called where it stands.
    """
    if isinstance(value, Mapping):
        return {_KEY.sub(HIDDEN, str(k)): redact_value(item, str(k)) for k, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_value(item, name) for item in value]
    if value is not None and _names_secret(name):
        return HIDDEN
    if isinstance(value, str):
        if not name.endswith("url"):
            return redact(value)
        scheme, mark, rest = value.partition("://")
        rest = scheme + mark + _without_credentials(rest) if mark else _NO_SCHEME.sub("", value)
        return _KEY.sub(HIDDEN, rest)
    return value


def redact_override(override: str) -> str:
    """Copy an override `a.b=value` without credentials.

    What stands under a name of secrets is hidden; the name of a variable that holds one stays.

    >>> redact_override("generate.endpoint.extra_headers.x-team=sk5"), redact_override("a.b=2")
    ('generate.endpoint.extra_headers.x-team=…', 'a.b=2')
    """
    name, equals, value = override.partition("=")
    parts = name.strip().split(".")
    if parts[-1] == "api_key_env" or "extra_headers" in parts:
        is_secret = not (VARIABLE.fullmatch(value.strip()) or value.strip() in ("", "~", "null"))
    else:
        is_secret = any(map(_names_secret, parts)) or bool(_NAME_THEN_VALUE.search(value))
    if equals and is_secret:
        return f"{redact(name)}={HIDDEN}"
    if parts[-1].endswith("url"):
        return f"{redact(name)}{equals}{redact_value(value, 'url')}"
    return redact(override)


def holds_credential(value: Any, name: str = "") -> bool:
    """Tell whether plain JSON values hold what looks like a credential, by its form or its name.

    >>> holds_credential({"auth": {"apiKey": "s3cr3t-77"}}), holds_credential({"eos_token": "</s>"})
    (True, False)
    """
    for own_name, _, inner in _leaves(value, name):
        text = "" if isinstance(inner, bool) or inner is None else str(inner)
        if _names_secret(own_name) and len(text) >= 6 and not re.search(r"[\s<>|]", text):
            return True
        if _KEY.search(text) or _AFTER_NAME.search(text) or _has_user(text):
            return True
    return False


def places_of_credentials(value: Any) -> Iterator[str]:
    """Yield the dotted places of texts and names with a provider's key, or a URL with a password.

    Addresses are passed over: they are shown and kept without their credentials.
    """
    for name, place, inner in _leaves(value):
        is_text = isinstance(inner, str) and not name.endswith("url")
        if is_text and (_KEY.search(inner) or _has_user(inner)):
            yield place


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str, Any]]:
    """Yield each scalar and each name in plain JSON values, however deep they are nested.

    Args:
        value: mappings, lists and scalars.
        name: what `value` is called.

    Yields:
        the name of the value, its dotted place, and itself; a name has none of its own.
    """
    pending: list[tuple[str, str, Any]] = [(name, name, value)]
    while pending:
        own, place, item = pending.pop()
        if isinstance(item, Mapping):
            for key, inner in reversed(list(item.items())):
                pending.append((str(key), f"{place}.{key}".lstrip("."), inner))
                pending.append(("", f"{place}, in a name".lstrip(", "), str(key)))
        elif isinstance(item, list | tuple):
            pending += [(own, place, inner) for inner in reversed(item)]
        else:
            yield own, place, item


def _names_secret(name: str) -> bool:
    return _SECRET_NAMES.search(_CAMEL_CASE.sub("_", name)) is not None


def _has_user(text: str) -> bool:
    """Tell whether a URL in `text` has a user or a password."""
    return any("@" in re.split(r"[/?#]", found[2])[0] for found in _URL.finditer(text))


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
