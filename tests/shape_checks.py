"""The checker behind `make test-shapes`: every call in the package must keep the shapes that its signature states.

beartype alone also refuses what the package itself must refuse with a sentence of its own (a codec's unknown encoding, a
recipe's number as text), and protocols of pydantic that it cannot check. So it is given the arrays' annotations only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with the types and shapes of its arrays checked at every call."""
    hints = function.__annotations__
    function.__annotations__ = {name: hint for name, hint in hints.items() if states_shape(hint)}
    return beartype(function)


def states_shape(hint: object) -> bool:
    """Whether an annotation is an array's, or holds one."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(states_shape(inner) for inner in get_args(hint))
