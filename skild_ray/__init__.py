"""SkiLD, demonstration-guided reinforcement learning with learned skills, as a distributed system on Ray.

from skild_ray import Trajectories, load_agent, load_experiment, run_pipeline

experiment = load_experiment("my_robot.yaml", ["algorithm.alpha=0.5"])
play = Trajectories.from_arrays(observations, actions, terminals=dones)
finished = run_pipeline(experiment, data={"play": play})
policy = load_agent(finished.artifact.path).policy(deterministic=True, seed=0)
"""

import importlib
from typing import TYPE_CHECKING, Any

from skild_ray.startup import import_mujoco, make_data_folder_absolute, silence_notices

if TYPE_CHECKING:
    from skild_ray.algorithms.skild.skild import SkiLDConfig
    from skild_ray.config import Experiment, load_experiment
    from skild_ray.data.trajectories import Trajectories
    from skild_ray.errors import SkildError
    from skild_ray.evaluation.agent import Agent, load_agent
    from skild_ray.evaluation.rollouts import play
    from skild_ray.pipeline import Run, run_pipeline

__all__ = [
    "Agent",
    "Experiment",
    "Run",
    "SkiLDConfig",
    "SkildError",
    "Trajectories",
    "load_agent",
    "load_experiment",
    "play",
    "run_pipeline",
]

_PLACES = {
    "Agent": "evaluation.agent",
    "Experiment": "config",
    "Run": "pipeline",
    "SkiLDConfig": "algorithms.skild.skild",
    "SkildError": "errors",
    "Trajectories": "data.trajectories",
    "load_agent": "evaluation.agent",
    "load_experiment": "config",
    "play": "evaluation.rollouts",
    "run_pipeline": "pipeline",
}

make_data_folder_absolute()
silence_notices()
import_mujoco()  # before anything else does


def __getattr__(name: str) -> Any:
    """The public names, imported when they are used: torch and Ray take seconds."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
