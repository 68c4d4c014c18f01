"""Scripted demonstrators, by name."""

from skild_ray.errors import ConfigError
from skild_ray.experts.base import Expert
from skild_ray.plugins import import_by_name

__all__ = ["EXPERTS", "Expert", "load_expert"]

EXPERTS = {
    "maze": "skild_ray.experts.maze:MazeExpert",
    "kitchen": "skild_ray.experts.kitchen:KitchenExpert",
    "kitchen_tracker": "skild_ray.experts.kitchen_tracker:KitchenTracker",
    "office": "skild_ray.experts.office:OfficeExpert",
}


def load_expert(name: str) -> type[Expert]:
    """The expert's class.

    Args:
        name: a key of EXPERTS, or `module:attribute` of a class with the methods of `Expert`.

    Raises:
        ConfigError: if there is no such expert.
    """
    module_name, colon, attribute = EXPERTS.get(name, name).partition(":")
    if not colon:
        raise ConfigError(f"unknown expert {name!r}: it is one of {', '.join(EXPERTS)}, or 'module:attribute'")
    expert = getattr(import_by_name(module_name, f"expert {name!r}"), attribute, None)
    if not (isinstance(expert, type) and hasattr(expert, "reset") and hasattr(expert, "act")):
        raise ConfigError(f"expert {name!r}: {module_name!r} has no class {attribute!r} with methods reset and act")
    return expert
