"""SkiLD as an RLlib algorithm: `SkiLDConfig`, `SkiLD`, `SkiLDTorchLearner`, `SkiLDTorchRLModule`.

`ReferenceSkiLDConfig` and `ReferenceSkiLD` are SkiLD with defects of the released code.
"""

from skild_ray.algorithms.skild.reference import ReferenceSkiLD, ReferenceSkiLDConfig
from skild_ray.algorithms.skild.skild import SkiLD, SkiLDConfig
from skild_ray.algorithms.skild.skild_learner import SkiLDTorchLearner
from skild_ray.algorithms.skild.skild_rl_module import SkiLDTorchRLModule

__all__ = ["ReferenceSkiLD", "ReferenceSkiLDConfig", "SkiLD", "SkiLDConfig", "SkiLDTorchLearner", "SkiLDTorchRLModule"]
