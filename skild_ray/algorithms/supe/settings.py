"""SUPE's settings, and what the program knows of it."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from skild_ray.algorithms.registry import AlgorithmSpec
from skild_ray.algorithms.rlpd.settings import SkillRLPDSettings
from skild_ray.config.algorithm import Rewards
from skild_ray.stages import DataKind, Stage

Relabel = Literal["none", "min", "pred"]


class SUPESettings(SkillRLPDSettings):
    """SUPE (Wilcoxson et al., "Leveraging Skills from Unlabeled Prior Data for Efficient Online Exploration", ICML
    2025).

    RLPD over skills with two additions: a bonus for novelty, and rewards and ends of prior data that models predict
    from the policy's own experience. `skild_ray.algorithms.supe.losses` has the formulas. Every field is also an
    argument of `SUPEConfig.training()`.

    Rewards are normalised, see `skild_ray.algorithms.reward_scale`: `bonus` and `initial_temperature` are in units of
    the largest discounted return, whatever the environment counts. The paper takes rewards as they are. In AntMaze
    they are -1 in each of 1000 env steps, four to a skill, and returns reach

        -(1 + 0.99 + 0.99^2 + 0.99^3) (1 - 0.99^250) / (1 - 0.99) = -362

    so the paper's bonus of 8 is 8 / 362 = 0.022 here, and its temperature of 0.05 is 1.4e-4. In its kitchen, with up to
    4 in each of 280 env steps, returns are at most 796: its 8 is 0.010 or more, its temperature of 1 is 1.3e-3 or more.

    What else differs from the paper: networks and models learn from the policy's own half of every batch, one step an
    update. There, the predictor of random features learns from the newest transition alone, once a skill. As in
    `SkillRLPDSettings` the policy starts as the skill prior.
    """

    type: Literal["supe"] = "supe"  # type: ignore[assignment]
    n_step: Literal[1] = Field(1, description="labels are those of single transitions")
    initial_temperature: float = Field(2e-3, gt=0, description="alpha at the start, in units of normalised returns")
    bonus: float = Field(
        0.02, ge=0, description="beta, weight of the novelty, in units of normalised returns; 0.02 is the paper's 8"
    )
    relabel: Relabel = Field(
        "pred",
        description="rewards of prior data. pred: those that a model predicts, as in the paper's kitchen; min: the "
        "smallest of the policy's own skills, as in its AntMaze; none: those that the data have",
    )

    @property
    def replayed(self) -> Mapping[DataKind, Rewards]:
        rewards: Rewards = "with rewards" if self.relabel == "none" else "unlabelled"
        return dict.fromkeys(super().replayed, rewards)

    @property
    def without_rewards(self) -> str:
        return "algorithm.relabel: pred or min learns without them"


SPEC = AlgorithmSpec(
    settings=SUPESettings,
    config="skild_ray.algorithms.supe.supe:SUPEConfig",
    stage=lambda settings: Stage(
        "supe",
        "SUPE",
        inputs=settings.inputs,
        summary="Reinforcement learning over skills with a bonus for novelty and relabelled prior data",
        because="algorithm.type is supe",
    ),
    remedy="lower algorithm.learning_rate",
)
