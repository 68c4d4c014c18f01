"""Plain SAC with demonstrations in its replay, as an RLlib algorithm: its environment and its configuration."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

from gymnasium.spaces import Box
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from skild_ray.algorithms.demonstrations import load_demonstrations
from skild_ray.algorithms.off_policy import OffPolicy
from skild_ray.algorithms.off_policy_config import Makers, OffPolicyConfig, Pace
from skild_ray.algorithms.sac.sac_experience import DemonstratedExperience
from skild_ray.algorithms.sac.sac_learner import SACTorchLearner
from skild_ray.algorithms.sac.sac_rl_module import SACTorchRLModule
from skild_ray.algorithms.sac.settings import SACSettings
from skild_ray.algorithms.typing import takes
from skild_ray.config import Experiment, Source
from skild_ray.envs.action_env import ActionVectorEnv
from skild_ray.envs.registry import make_env
from skild_ray.generation.sources import named_demonstrations


class SACConfig(OffPolicyConfig):
    """Configuration of `SAC`.

        config = (
            SACConfig()
            .environment("skild_ray/Kitchen-v0", env_config={"task": "mkls"})
            .demonstrations("kitchen/teleop-complete15-v2")
            .training(total_env_steps=200_000)
        )
        algo = config.build_algo()

    `training` takes every field of `SACSettings`, which documents them, and nothing unknown.
    """

    Settings = SACSettings
    version = 2
    settings: SACSettings

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or SAC)
        self.demonstration_sources: list[dict[str, Any]] = []

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> Self:
        """The algorithm that an experiment file describes; its demonstrations are read where they are stored."""
        return super().from_experiment(experiment).demonstrations(*named_demonstrations(experiment))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        return super().from_record(record).demonstrations(*map(Source.model_validate, record["sources"]))

    @property
    def record(self) -> dict[str, Any]:
        return super().record | {"sources": self.demonstration_sources}

    @takes(SACSettings)
    def training(self, **kwargs: Any) -> Self:  # type: ignore[override]
        """Set fields of `SACSettings`; RLlib takes the rest, and refuses what is unknown."""
        return super().training(**kwargs)

    def demonstrations(self, *sources: str | Source) -> Self:
        """Name the stored data sets that hold the demonstrations; see `load_rewarded_episodes` for their rewards."""
        found = [Source(dataset=source) if isinstance(source, str) else source for source in sources]
        self.demonstration_sources = [source.model_dump() for source in found]
        return self

    @property
    def sources(self) -> Sequence[Source]:
        """What `demonstrations` named."""
        return [Source.model_validate(source) for source in self.demonstration_sources]

    def validate(self) -> None:
        super().validate()
        if not self.demonstration_sources:
            raise ValueError("SACConfig needs .demonstrations(DATASET)")

    def pace(self) -> Pace:
        settings = self.settings
        return Pace(
            total_env_steps=settings.total_env_steps,
            horizon=1,
            batch_size=settings.batch_size,
            samples_per_decision=settings.updates_per_env_step * settings.batch_size,
            warmup_decisions=settings.warmup_env_steps,
            synchronous=settings.synchronous,
        )

    def build_experience(self) -> DemonstratedExperience:
        rows = load_demonstrations(self.sources, self.low_level)
        return DemonstratedExperience(rows, self.settings, self.seed or 0)

    def make_vector_env(self, makers: Makers, autoreset: bool = True) -> ActionVectorEnv:
        return ActionVectorEnv(makers, autoreset=autoreset)

    def spaces(self) -> tuple[Box, Box]:
        with contextlib.closing(make_env(self.low_level.id, self.low_level.kwargs)) as env:
            return cast(Box, env.observation_space), cast(Box, env.action_space)

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=SACTorchRLModule)

    def get_default_learner_class(self) -> type:
        return SACTorchLearner

    @property
    def model_settings(self) -> dict[str, Any]:
        return {"algorithm": self.settings.model_dump()}


class SAC(OffPolicy):
    """Learning over the environment's own actions: a step is one environment step.

    Demonstrations are in a replay of their own, from which a fixed share of every batch comes, half by default
    (symmetric sampling, as of Ball et al., "Efficient Online Reinforcement Learning with Offline Data", 2023): they are
    never overwritten, and do not get rarer as experience grows.

    RLlib's own SAC has the same losses (Huber's in place of the square), but neither its replay nor its temperature is
    in checkpoints on the new API stack, and it draws episodes one by one, at several times the cost of an update. This
    one shares the loop, the replay and the checkpoints of SkiLD, with which it is compared.
    """

    config: SACConfig

    @classmethod
    def get_default_config(cls) -> SACConfig:
        return SACConfig()
