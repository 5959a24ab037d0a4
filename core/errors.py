"""The errors that a user can meet, as one tree of exceptions.

```
LatentQAError                      exit 1
├── UserError                      exit 2: one line says what, where, got and expected, what to do
│   ├── ConfigError (ValueError)       an experiment file or an option is wrong
│   ├── DataError (ValueError)         rows or source files are wrong
│   ├── ModelError (ValueError)        a model cannot be found, read or handled
│   ├── StoreError (ValueError)        a store does not fit what was asked of it
│   ├── RefError (LookupError)           a REF names nothing, or too much
│   ├── EndpointError (ConnectionError) an LLM endpoint cannot do what is needed
│   │   └── NoCreditError              its account has no money left
│   ├── BudgetError (RuntimeError)      the money that the user allowed is spent
│   └── StorageError (OSError)         the disk is full, read-only or gone
└── DamagedError (OSError)         bytes on disk are not the bytes that were committed
```

Every other package imports its errors from here.
"""

from __future__ import annotations

from pathlib import Path


class LatentQAError(Exception):
    """Base of every error of this project."""

    exit_code = 1
    """Exit status of the command line."""


class UserError(LatentQAError):
    """A mistake that the user can mend; its text is one line."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """An experiment file, a `--set` or another option is wrong."""


class DataError(UserError, ValueError):
    """Source files or rows are wrong."""


class ModelError(UserError, ValueError):
    """A model cannot be found, read or handled."""


class StoreError(UserError, ValueError):
    """An activation store does not fit what was asked of it."""


class RefError(UserError, LookupError):
    """A REF names no artifact, or more than one."""


class EndpointError(UserError, ConnectionError):
    """An LLM endpoint is unreachable, refuses the key, or ignores what it was asked.

    Attributes:
        transient: whether the same may go well a little later, with nothing changed.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class NoCreditError(EndpointError):
    """The account at an LLM endpoint has no money left."""


class BudgetError(UserError, RuntimeError):
    """The next LLM request could cost more than the user allowed."""


class StorageError(UserError, OSError):
    """The disk is full, read-only, or gone."""


class DamagedError(LatentQAError, OSError):
    """Bytes on disk differ from what was committed.

    Attributes:
        path: the damaged file or folder; the artifact above it is redone by the next run.
    """

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path

    def __reduce__(self) -> tuple[type[DamagedError], tuple[str, Path]]:
        # exceptions rebuild themselves from `args`, which lacks the path; workers send them home
        return type(self), (str(self), self.path)


def first_line(error: Exception) -> str:
    """Return the first line of a library's error, or its type's name where it says nothing.

    A line that ends with a colon is followed by what it announces.
    """
    first, *others = (str(error).strip() or type(error).__name__).splitlines()
    announced = next((line.strip() for line in others if line.strip()), "")
    return f"{first} {announced}" if first.endswith(":") and announced else first


def why_failed(error: Exception) -> str:
    """Say in one line why something failed that others go on without."""
    if isinstance(error, LatentQAError):
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {first_line(error)}"
