"""Experiments from YAML, with overrides, and back.

An experiment file may name another one under `extends:` (a path relative to itself); its own keys are merged over
that one, and `--set a.b=c` overrides come last. Mappings are merged key by key, so sources of data by their names; a
list replaces what is inherited, and `a.0.b` names a key of an entry. Another `algorithm.type` begins with its own
defaults. `~` at the start of a path is the user's home.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from skild_ray.config.algorithm import AlgorithmSettings
from skild_ray.config.experiment import Experiment
from skild_ray.config.messages import explain
from skild_ray.config.section import Section
from skild_ray.errors import ConfigError


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read, merge and validate an experiment file.

    Args:
        path: YAML file.
        overrides: `a.b=value` strings, merged last; values are YAML.

    Raises:
        ConfigError: one line that names file and key, with the nearest valid key where one is unknown.
    """
    return _validate(read_mapping(Path(os.path.expanduser(path))), overrides, str(path))


def override_experiment(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    """The experiment with `a.b=value` overrides.

    Raises:
        ConfigError: as `load_experiment`.
    """
    return _validate(OmegaConf.create(experiment.model_dump()), overrides, experiment.name)


def with_values(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    """The experiment with other values at these keys, such as `algorithm.alpha`.

    Raises:
        ConfigError: one line that names the key, with the nearest valid one where it is unknown.
    """
    content = OmegaConf.create(experiment.model_dump(mode="json"))
    for key, value in values.items():
        set_value(content, key, value, f"'{key}'")
    try:
        plain = OmegaConf.to_container(content)
        return Experiment.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(explain(error, Experiment, plain)) from None


def to_yaml(experiment: Experiment) -> str:
    """The resolved experiment, every default included, as a file that `load_experiment` reads back."""
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)


def _validate(content: Any, overrides: Sequence[str], origin: str) -> Experiment:
    for text in overrides:
        set_value(content, *override_of(text), f"--set {text}")
    try:
        plain = OmegaConf.to_container(content, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{origin}: {str(error).splitlines()[0]}") from None
    try:
        return Experiment.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error, Experiment, plain)}") from None


def read_mapping(path: Path, seen: tuple[Path, ...] = ()) -> Any:
    """The content of a YAML file, merged over that of the one it extends."""
    if path.resolve() in seen:
        raise ConfigError(f"{path}: 'extends' runs in a circle")
    try:
        content = OmegaConf.load(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such experiment file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{path}: an experiment is a mapping of keys to values")
    base = content.pop("extends", None)
    if base is None:
        return content
    inherited = read_mapping(path.parent / os.path.expanduser(str(base)), (*seen, path.resolve()))
    _drop_other_algorithm(inherited, OmegaConf.select(content, "algorithm.type"))
    return OmegaConf.create(_merged(OmegaConf.to_container(inherited), OmegaConf.to_container(content)))


def _merged(base: Any, changes: Any) -> Any:
    """Mappings merged key by key, where the entries of a list in `base` have the keys "0", "1", ...; else `changes`."""
    if not isinstance(changes, dict) or not isinstance(base, dict | list):
        return changes
    below = base if isinstance(base, dict) else {str(index): entry for index, entry in enumerate(base)}
    return below | {key: _merged(below.get(key), value) for key, value in changes.items()}


def _drop_other_algorithm(content: Any, kind: object) -> None:
    """Forget the settings of another algorithm than the one of this type, which begins with its own defaults."""
    if kind is None or "algorithm" not in content:
        return
    if kind != OmegaConf.select(content, "algorithm.type", default=AlgorithmSettings.model_fields["type"].default):
        content.pop("algorithm")


def set_value(content: DictConfig, key: str, value: Any, origin: str) -> None:
    """Set the value of `a.b`, or `a.0.b` inside a list; a mapping is merged over the one that is there, if one is.

    `origin` names the change in messages.
    """
    if key == "algorithm.type":
        _drop_other_algorithm(content, value)
    elif key == "algorithm" and isinstance(value, Mapping):
        _drop_other_algorithm(content, value.get("type"))
    try:
        OmegaConf.update(content, key, value, merge=not isinstance(value, list))
    except (IndexError, TypeError, ValueError):
        raise ConfigError(
            f"{origin}: no such place; entries of a list are numbered from 0, as in data.task_agnostic.0.weight"
        ) from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"{origin}: {str(error).splitlines()[0]}") from None


def overridden(content: DictConfig, overrides: Sequence[str], schema: type[Section]) -> Any:
    """Plain values of a file about experiments, a sweep's or a benchmark's, after `key=value` strings.

    A key of its schema goes there, any other to its `set`, the changes of all its experiments.

    Raises:
        ConfigError: one line that names the string.
    """
    changed: dict[str, Any] = {}
    for text in overrides:
        key, value = override_of(text)
        if key.partition(".")[0] in schema.model_fields:
            set_value(content, key, value, f"--set {text}")
        else:
            changed[key] = value
    plain: Any = OmegaConf.to_container(content, resolve=True)
    plain["set"] = {**(plain.get("set") or {}), **changed}
    return plain


def override_of(text: str) -> tuple[str, Any]:
    """Key and value of `a.b=value`; where the experiment has text, a number is the text that was written."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text}: expected key=value, as in --set algorithm.alpha=0.5")
    try:
        # As in files: YAML 1.1 itself takes 2026-11-28 for a date, and 1e-3 for text.
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))
    except (yaml.YAMLError, OmegaConfBaseException):
        raise ConfigError(f"--set {text}: the value is not valid YAML") from None
    assert isinstance(parsed, dict)
    return key, value if isinstance(parsed["value"], int | float) and _takes_text(key) else parsed["value"]


def _takes_text(key: str) -> bool:
    """Whether the experiment has text at `a.b`, or entries of text there."""
    annotation: Any = Experiment
    parts = iter(key.split("."))
    for part in parts:
        if part.isdecimal():
            continue
        section = next((c for c in _alternatives(annotation) if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if section is None or part not in section.model_fields:
            return False
        annotation = section.model_fields[part].annotation
        if get_origin(annotation) is dict:
            next(parts, None)  # a key of the user's own
            annotation = get_args(annotation)[1]
    return str in _alternatives(annotation)


def _alternatives(annotation: Any) -> list[Any]:
    """All types in an annotation such as `list[str] | None`."""
    return [annotation, *(inner for part in get_args(annotation) for inner in _alternatives(part))]
