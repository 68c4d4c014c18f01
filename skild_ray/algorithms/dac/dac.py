"""DAC as an RLlib algorithm: its configuration."""

from typing import Any, Self

from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from skild_ray.algorithms.dac.dac_experience import DACExperience
from skild_ray.algorithms.dac.dac_learner import DACTorchLearner
from skild_ray.algorithms.dac.dac_rl_module import DACTorchRLModule
from skild_ray.algorithms.dac.settings import DACSettings
from skild_ray.algorithms.rlpd.rlpd import RLPD, RLPDConfig
from skild_ray.algorithms.typing import takes


class DACConfig(RLPDConfig):
    """Configuration of `DAC`.

        config = (
            DACConfig()
            .environment("skild_ray/Kitchen-v0", env_config={"task": "mkls"})
            .demonstrations("kitchen/teleop-complete15-v2")
            .training(total_env_steps=200_000)
        )
        algo = config.build_algo()

    `training` takes every field of `DACSettings`, which documents them, and nothing unknown.
    """

    Settings = DACSettings
    version = 1
    settings: DACSettings

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or DAC)

    @takes(DACSettings)
    def training(self, **kwargs: Any) -> Self:  # type: ignore[override]
        """Set fields of `DACSettings`; RLlib takes the rest, and refuses what is unknown."""
        return super().training(**kwargs)

    @property
    def columns(self) -> tuple[str, ...]:
        return (*super().columns, "n_step_states", "n_step_actions", "n_step_weights")

    @property
    def experience_class(self) -> type[DACExperience]:
        return DACExperience

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=DACTorchRLModule)

    def get_default_learner_class(self) -> type:
        return DACTorchLearner


class DAC(RLPD):
    """RLPD whose reward is that of a discriminator, which learns along. Demonstrations need no rewards."""

    config: DACConfig

    @classmethod
    def get_default_config(cls) -> DACConfig:
        return DACConfig()
