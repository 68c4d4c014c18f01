"""Plain SAC with demonstrations in its replay, as an RLlib algorithm: its environment and its configuration."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.tune.registry import register_env

from skild_ray.algorithms.demonstrations import load_demonstrations
from skild_ray.algorithms.off_policy import OffPolicy, OffPolicyConfig, Pace
from skild_ray.algorithms.sac.sac_experience import DemonstratedExperience
from skild_ray.algorithms.sac.sac_learner import SACTorchLearner
from skild_ray.algorithms.sac.sac_rl_module import SACTorchRLModule
from skild_ray.config import Experiment, SACSettings, Source
from skild_ray.envs.action_env import ActionVectorEnv
from skild_ray.envs.registry import make_env
from skild_ray.generation.sources import stored_demonstrations

ACTION_ENV = "skild_ray/actions"


def make_action_env(context: Mapping[str, Any]) -> ActionVectorEnv:
    """The vector environment of one env runner, from RLlib's environment context."""
    torch.set_num_threads(1)
    return ActionVectorEnv([lambda: make_env(context["id"], context["kwargs"])] * context.get("num_envs", 1))


register_env(ACTION_ENV, make_action_env)


class SACConfig(OffPolicyConfig):
    """Configuration of `SAC`.

        config = (
            SACConfig()
            .environment("skild_ray/Kitchen-v0", env_config={"task": "mkls"})
            .demonstrations("kitchen/teleop-complete15-v2")
            .training(total_env_steps=200_000)
        )
        algo = config.build_algo()

    `training` takes every field of `skild_ray.config.SACSettings`, which documents them, and nothing unknown.
    """

    section = SACSettings
    version = 2
    vector_env = ACTION_ENV
    make_vector_env = staticmethod(make_action_env)

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or SAC)
        self.demonstration_sources: list[dict[str, Any]] = []

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> Self:
        """The algorithm that an experiment file describes; scripted demonstrations are made where they are missing."""
        assert experiment.sac is not None
        sources = stored_demonstrations(experiment)
        return super().from_experiment(experiment).training(**experiment.sac.model_dump()).demonstrations(*sources)

    def demonstrations(self, *sources: str | Source) -> Self:
        """Name the stored data sets that hold the demonstrations; see `load_rewarded_episodes` for their rewards."""
        found = [Source(dataset=source) if isinstance(source, str) else source for source in sources]
        self.demonstration_sources = [source.model_dump() for source in found]
        return self

    @property
    def sources(self) -> Sequence[Source]:
        """What `demonstrations` named."""
        return [Source.model_validate(source) for source in self.demonstration_sources]

    @property
    def settings(self) -> SACSettings:
        """The fields of `config.SACSettings`, validated."""
        settings: SACSettings = self.validated()
        return settings

    def validate(self) -> None:
        super().validate()
        if self.low_level_env is None or not self.demonstration_sources:
            raise ValueError("SACConfig needs .environment(ID) and .demonstrations(DATASET)")

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

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=SACTorchRLModule)

    def get_default_learner_class(self) -> type:
        return SACTorchLearner

    @property
    def record(self) -> dict[str, Any]:
        return super().record | {"sources": self.demonstration_sources, "sac": self.settings.model_dump()}

    @property
    def model_settings(self) -> dict[str, Any]:
        return {"sac": self.settings.model_dump()}


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
