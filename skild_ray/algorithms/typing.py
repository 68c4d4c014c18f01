"""Signatures for editors, type checkers and `help`, taken from an algorithm's settings."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

Fields = ParamSpec("Fields")
Config = TypeVar("Config")


def takes(
    settings: Callable[Fields, Any],
) -> Callable[[Callable[..., Config]], Callable[Concatenate[Any, Fields], Config]]:
    """Decorates a method `(self, **kwargs)` whose keyword arguments are the fields of a class of settings."""

    def decorate(method: Callable[..., Config]) -> Callable[Concatenate[Any, Fields], Config]:
        @wraps(method)
        def with_fields(self: Any, /, *args: Fields.args, **kwargs: Fields.kwargs) -> Config:
            return method(self, *args, **kwargs)

        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        fields = inspect.signature(settings).parameters.values()
        with_fields.__signature__ = inspect.Signature([own, *fields])  # type: ignore[attr-defined]
        return with_fields

    return decorate
