"""The algorithms of stage 4, by the `type` that an experiment names."""

import difflib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from skild_ray.errors import ConfigError
from skild_ray.plugins import import_by_name
from skild_ray.stages import Stage

if TYPE_CHECKING:
    from skild_ray.algorithms.off_policy_config import OffPolicyConfig
    from skild_ray.config import AlgorithmSettings, Experiment

ALGORITHMS: Mapping[str, str] = {
    "skild": "skild_ray.algorithms.skild.settings:SPEC",
    "skild_reference": "skild_ray.algorithms.skild.reference_settings:SPEC",
    "bc": "skild_ray.algorithms.cloning.settings:SPEC",
    "skill_bc": "skild_ray.algorithms.cloning.settings:OVER_SKILLS",
    "dac": "skild_ray.algorithms.dac.settings:SPEC",
    "qc": "skild_ray.algorithms.qc.settings:SPEC",
    "rlpd": "skild_ray.algorithms.rlpd.settings:SPEC",
    "rlpd_skills": "skild_ray.algorithms.rlpd.settings:OVER_SKILLS",
    "supe": "skild_ray.algorithms.supe.settings:SPEC",
}
"""Type -> `module:attribute` of its `AlgorithmSpec`."""

ENTRY_POINTS = "skild_ray.algorithms"
"""Group of the entry points by which other packages register theirs, `type = module:attribute`."""


@dataclass(frozen=True)
class AlgorithmSpec:
    """What the program knows of an algorithm before it imports it, since reading an experiment should not import Ray.

    Attributes:
        settings: class of the experiment's section `algorithm`; its `type` is one by which `spec_of` finds this.
        config: `module:class` of its `OffPolicyConfig`, which knows the rest.
        stage: stage 4 with these settings: its name, what pages call it, and the stages that it starts from.
        remedy: what to change if a loss is not finite.
    """

    settings: "type[AlgorithmSettings]"
    config: str
    stage: Callable[[Any], Stage]
    remedy: str

    def load_config(self) -> "type[OffPolicyConfig]":
        """The class of its configuration."""
        module, _, name = self.config.partition(":")
        found: type[OffPolicyConfig] = getattr(importlib.import_module(module), name)
        return found


def spec_of(type: str) -> AlgorithmSpec:
    """The algorithm of this type: a key of ALGORITHMS, an installed package's, or `module:attribute`.

    Raises:
        ConfigError: there is none, or it cannot be imported.
    """
    needed_by = f"algorithm {type!r}"
    installed = {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}
    place = ALGORITHMS.get(type) or installed.get(type) or type
    module, colon, name = place.partition(":")
    if not colon:
        known = [*ALGORITHMS, *installed]
        nearest = difflib.get_close_matches(type, known, n=1)
        remedy = f"the nearest is {nearest[0]!r}" if nearest else f"there are {', '.join(known)}, or 'module:attribute'"
        raise ConfigError(f"unknown {needed_by}; {remedy}")
    spec = getattr(import_by_name(module, needed_by), name, None)
    if not isinstance(spec, AlgorithmSpec):
        raise ConfigError(f"{needed_by}: {module!r} has no AlgorithmSpec {name!r}")
    return spec


def last_stage(experiment: "Experiment") -> Stage:
    """Stage 4 of the experiment."""
    return spec_of(experiment.algorithm.type).stage(experiment.algorithm)
