"""SkiLD's stage 4 as an RLlib algorithm: its configuration."""

from collections.abc import Mapping
from typing import Any, Self

from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from skild_ray.algorithms.off_policy import OffPolicy
from skild_ray.algorithms.off_policy_config import Pace
from skild_ray.algorithms.over_skills import SkillConfig
from skild_ray.algorithms.pretrained import Pretrained
from skild_ray.algorithms.skild.settings import SkiLDSettings
from skild_ray.algorithms.skild.skild_experience import SkillExperience
from skild_ray.algorithms.skild.skild_learner import SkiLDTorchLearner
from skild_ray.algorithms.skild.skild_rl_module import SkiLDTorchRLModule
from skild_ray.algorithms.typing import takes


class SkiLDConfig(SkillConfig):
    """Configuration of `SkiLD`.

        config = (
            SkiLDConfig()
            .environment("skild_ray/Maze-v0", env_config={"max_episode_steps": 2000})
            .pretrained(run_dir="runs/maze")
            .env_runners(num_env_runners=2, num_envs_per_env_runner=16)
            .training(alpha=0.0025, n_step=8)
        )
        algo = config.build_algo()

    `training` takes every field of `SkiLDSettings`, which documents them, and nothing unknown.
    """

    Settings = SkiLDSettings
    version = 2
    settings: SkiLDSettings

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or SkiLD)

    @takes(SkiLDSettings)
    def training(self, **kwargs: Any) -> Self:  # type: ignore[override]
        """Set fields of `SkiLDSettings`; RLlib takes the rest, and refuses what is unknown."""
        return super().training(**kwargs)

    def open_pretrained(self) -> Pretrained:
        """The artifacts of stages 1 to 3."""
        return Pretrained.open(self.run_dir or "")

    def pace(self) -> Pace:
        settings = self.settings
        return Pace(
            total_env_steps=settings.total_env_steps,
            horizon=self.horizon,
            batch_size=settings.batch_size,
            samples_per_decision=settings.samples_per_skill_step,
            warmup_decisions=settings.warmup_skill_steps,
            synchronous=settings.synchronous,
        )

    @property
    def resolved(self) -> SkiLDSettings:
        """The settings, with those that are left to the data filled in."""
        if self.settings.discount is not None:
            return self.settings
        return self.settings.with_demonstrations_of(self.open_pretrained().demonstration_skills)

    @property
    def model_settings(self) -> dict[str, Any]:
        return super().model_settings | {"algorithm": self.resolved.model_dump()}

    def build_experience(self) -> SkillExperience:
        return SkillExperience(self.open_pretrained(), self.resolved, self.low_level, self.seed or 0)

    def require_inputs(self, experience: Mapping[str, Any]) -> None:
        self.open_pretrained().require(experience["pretrained"])

    def without_rl(self) -> Mapping[str, Self]:
        """The policy that training starts from; where that is the posterior, also the posterior with its own sigma."""
        found = {"initial": self}
        if self.settings.policy_init == "posterior":
            found["posterior"] = self.copy(copy_frozen=False).training(policy_init_scale=1.0)
        return found

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=SkiLDTorchRLModule)

    def get_default_learner_class(self) -> type:
        return SkiLDTorchLearner


class SkiLD(OffPolicy):
    """Learning over skills: a decision is one skill, worth up to H environment steps."""

    config: SkiLDConfig
    experience: SkillExperience

    def training_step(self) -> None:
        super().training_step()
        if self.config.settings.normalize_rewards:
            self.metrics.log_value("reward_scale", self.experience.reward_scale.value, window=1)

    @classmethod
    def get_default_config(cls) -> SkiLDConfig:
        return SkiLDConfig()
