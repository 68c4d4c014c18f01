"""SkiLD as an RLlib algorithm: `SkiLDConfig`, `SkiLD`, `SkiLDTorchLearner`, `SkiLDTorchRLModule`."""

from skild_ray.algorithms.skild.skild import SkiLD, SkiLDConfig
from skild_ray.algorithms.skild.skild_learner import SkiLDTorchLearner
from skild_ray.algorithms.skild.skild_rl_module import SkiLDTorchRLModule

__all__ = ["SkiLD", "SkiLDConfig", "SkiLDTorchLearner", "SkiLDTorchRLModule"]
