"""Plain SAC with demonstrations in its replay: `SACConfig`, `SAC`, `SACTorchLearner`, `SACTorchRLModule`."""

from skild_ray.algorithms.sac.sac import SAC, SACConfig
from skild_ray.algorithms.sac.sac_learner import SACTorchLearner
from skild_ray.algorithms.sac.sac_rl_module import SACTorchRLModule

__all__ = ["SAC", "SACConfig", "SACTorchLearner", "SACTorchRLModule"]
