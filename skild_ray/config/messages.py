"""What is wrong with an experiment, in one line."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from skild_ray.config.section import Section

MOVED = {
    "sac": "algorithm: {type: rlpd, ...}",
    "algorithm.reference_quirks": "algorithm: {type: skild_reference}",
    "rollout.skill_steps_per_fragment": "rollout.decisions_per_fragment",
}
"""Keys of earlier versions, and what to write now."""


def explain(error: ValidationError, schema: type[BaseModel], content: Any = None) -> str:
    """One problem as 'key: message', with the nearest key of `schema` if it is unknown.

    `content` is what was validated: some of its sections say themselves which class describes them.
    """
    problems = error.errors()
    # A misspelt key is also a missing one; what was meant is better said of the former.
    problem = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    location = [part for part in problem["loc"]]
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden" and key in MOVED:
        return f"'{key}' is now written '{MOVED[key]}'"
    if problem["type"] == "extra_forbidden":
        nearest = _nearest_key(location, schema, content)
        return f"unknown key '{key}'" + (f"; the nearest is '{nearest}'" if nearest else "")
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    got = "" if isinstance(problem["input"], dict | list) else f", got {_shortened(repr(problem['input']))}"
    quotes = "; put it in quotes" if problem["type"] == "string_type" and got else ""
    return f"'{key}': {message}{got}{quotes}" if key else message


def _shortened(text: str, length: int = 80) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _nearest_key(location: Sequence[int | str], schema: type[BaseModel], content: Any) -> str | None:
    """The most similar key beside the unknown one, or else the key of that name in any other section."""
    name = str(location[-1])
    beside = difflib.get_close_matches(name, _section_at(location[:-1], schema, content).model_fields, n=1)
    if beside:
        return ".".join(map(str, [*location[:-1], *beside]))
    for key in schema.model_fields:
        section = _section_at([key], schema, content)
        if section is not schema and name in section.model_fields:
            return f"{key}.{name}"
    return None


def _section_at(location: Sequence[int | str], schema: type[BaseModel], content: Any) -> type[BaseModel]:
    """The section at a place of the experiment; the one around it where that is no section."""
    section = schema
    parts = iter(location)
    for part in parts:
        content = content.get(part) if isinstance(content, Mapping) else None
        if isinstance(part, int) or part not in section.model_fields:
            continue
        annotation = section.model_fields[part].annotation
        if get_origin(annotation) is dict:
            key = next(parts, None)  # one of the user's own
            content = content.get(key) if isinstance(content, Mapping) else None
        candidates = [annotation, *get_args(annotation)]
        found = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if found:
            section = found[0].for_content(content) if issubclass(found[0], Section) else found[0]
    return section
