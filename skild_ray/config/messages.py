"""What is wrong with an experiment, in one line."""

import difflib
from collections.abc import Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, schema: type[BaseModel]) -> str:
    """One problem as 'key: message', with the nearest key of `schema` if it is unknown."""
    problems = error.errors()
    # A misspelt key is also a missing one; what was meant is better said of the former.
    problem = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    location = [part for part in problem["loc"]]
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        nearest = _nearest_key(location, schema)
        return f"unknown key '{key}'" + (f"; the nearest is '{nearest}'" if nearest else "")
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    got = "" if isinstance(problem["input"], dict | list) else f", got {_shortened(repr(problem['input']))}"
    quotes = "; put it in quotes" if problem["type"] == "string_type" and got else ""
    return f"'{key}': {message}{got}{quotes}" if key else message


def _shortened(text: str, length: int = 80) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _nearest_key(location: Sequence[int | str], schema: type[BaseModel]) -> str | None:
    """The most similar key beside the unknown one, or else the key of that name in any other section."""
    name = str(location[-1])
    beside = difflib.get_close_matches(name, _keys_beside(location, schema), n=1)
    if beside:
        return ".".join(map(str, [*location[:-1], *beside]))
    for section, field in schema.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and name in annotation.model_fields:
            return f"{section}.{name}"
    return None


def _keys_beside(location: Sequence[int | str], schema: type[BaseModel]) -> list[str]:
    """Field names of the section in which `location`'s last part stands."""
    section: Any = schema
    parts = iter(location[:-1])
    for part in parts:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        if get_origin(annotation) is dict:
            next(parts, None)  # a key of the user's own
        candidates = [annotation, *get_args(annotation)]
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(section.model_fields)
