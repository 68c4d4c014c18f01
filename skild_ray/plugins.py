"""What other packages bring along, by name: modules, and environments that an entry point registers."""

import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

import gymnasium as gym

from skild_ray.errors import ConfigError, one_line

ENVIRONMENTS = "gymnasium.envs"
ROOT = "__root__"


def import_by_name(module: str, needed_by: str) -> ModuleType:
    """Import a module for something that an experiment names.

    Raises:
        ConfigError: if it cannot be imported; the message begins with `needed_by` and says what to do.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever a user's module raises
        absent = isinstance(error, ModuleNotFoundError) and error.name == module.partition(".")[0]
        remedy = "; install its package, on every node, or put its folder into PYTHONPATH" if absent else ""
        raise ConfigError(f"{needed_by}: cannot import {module!r}: {one_line(error)}{remedy}") from error


def import_extra(package: str, extra: str, needed_by: str, otherwise: str = "") -> ModuleType:
    """Import a package that is installed with an extra of this one.

    A mere folder of its name, such as the `wandb` that W&B leaves where it ran, is no package, though Python takes it
    for one.

    Raises:
        ConfigError: if it cannot be imported; the message begins with `needed_by` and says what to do, or `otherwise`.
    """
    try:
        module = importlib.import_module(package)
        if module.__file__ is None:
            raise ModuleNotFoundError(name=package)
    except Exception as error:  # an installation that is broken raises anything
        absent = isinstance(error, ModuleNotFoundError) and error.name == package
        reason = "the package is missing" if absent else f"cannot import {package!r}: {one_line(error)}"
        raise ConfigError(f"{needed_by}: {reason}; pip install 'skild_ray[{extra}]'{otherwise}") from error
    return module


def register_environments(id: str) -> None:
    """Let installed packages register the environments of this id's namespace, unless it is known already.

    A package has an entry point of the group `gymnasium.envs` for that, named like the namespace (or `__root__`): a
    module that registers when it is imported, or a function that does. Gymnasium itself ignores them since 1.0.

    Raises:
        ConfigError: if such an entry point cannot be loaded.
    """
    if id in gym.registry:
        return
    for point in entry_points(group=ENVIRONMENTS):
        if point.name in (id.partition("/")[0], ROOT):
            try:
                _register(point)
            except Exception as error:  # whatever a user's package raises
                raise ConfigError(f"environment {id!r}: entry point {point.value!r}: {one_line(error)}") from error


@cache
def _register(point: EntryPoint) -> None:
    found = point.load()
    if callable(found):
        found()
