"""What can go wrong in a fit: the data or a parameter, or a head that breaks its contract; all else is a bug."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class FitError(ValueError):
    """Data or parameters that a head cannot be fitted or asked with. Its message is for the user, who can mend it.

    A head raises it on purpose. Whatever else comes out of a head's code is taken for a bug and keeps its traceback.
    """


class ContractError(TypeError):
    """A head that declares, or returns, what no head may: the message names the attribute, and what was expected."""


@contextmanager
def about_the_data(argument: str = "") -> Iterator[None]:
    """Turn what scikit-learn's checks of an argument raise into `FitError`, which names the argument."""
    try:
        yield
    except ValueError as error:
        raise FitError(f"{argument}: {error}" if argument else str(error)) from error
