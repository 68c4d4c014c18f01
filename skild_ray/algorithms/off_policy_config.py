"""What an off-policy algorithm has to say of itself, as an RLlib configuration."""

import contextlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.tune.registry import register_env

from skild_ray.algorithms.env_runners import BoundedEnvRunner
from skild_ray.algorithms.experience import Experience
from skild_ray.algorithms.registry import spec_of
from skild_ray.algorithms.rllib_internals import ModelSettingsConfig
from skild_ray.config import AlgorithmSettings, Environment, Experiment, RolloutSettings
from skild_ray.envs.action_env import ActionVectorEnv
from skild_ray.envs.lockstep import LockstepVectorEnv
from skild_ray.envs.registry import make_env

Makers = Sequence[Callable[[], gym.Env]]
"""What makes each of the low-level environments of a vector environment."""

ENVIRONMENT = "skild_ray/decisions"
"""RLlib's name for the vector environment of whichever algorithm it is."""


class Pace(NamedTuple):
    """How sampling and learning take turns. A decision of the policy lasts up to `horizon` env steps."""

    total_env_steps: int
    horizon: int
    batch_size: int
    samples_per_decision: float
    """Replayed transitions for each new one of the policy's own."""
    warmup_decisions: int
    """Decisions collected before the first update, or own transitions, where a decision is stored as several."""
    synchronous: bool
    offline_updates: int = 0
    """Updates before the first decision, from what `build_experience` starts with."""


class OffPolicyConfig(ModelSettingsConfig):
    """Configuration of an `OffPolicy` algorithm: RLlib's, with the algorithm's own settings in one attribute.

    A subclass names its `Settings` and `version`, and gives `pace`, `build_experience` and, as in RLlib,
    `get_default_rl_module_spec` and `get_default_learner_class`. Its decisions are the environment's own actions unless
    it replaces `make_vector_env` and `horizon`, as `SkillConfig` does. The class that an algorithm's `AlgorithmSpec`
    names is also made in env runners, from the `record`.

    Attributes:
        settings: of the algorithm, validated; `training` changes them.
    """

    Settings: ClassVar[type[AlgorithmSettings]]
    version: ClassVar[int]
    """Raised when the code changes what is learned or what a checkpoint holds; part of the fingerprint of stage 4."""

    settings: AlgorithmSettings

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class)
        self.settings = self.Settings()
        self.low_level_env: str | None = None
        self.low_level_kwargs: dict[str, Any] = {}
        self.learner_threads = 1
        # The vector environments bound actions themselves.
        self.normalize_actions = False
        self.clip_actions = False
        self.gym_env_vectorize_mode = "vector_entry_point"
        self.rollout_fragment_length = 4
        self.num_env_runners = 1
        self.num_envs_per_env_runner = 16
        self.min_sample_timesteps_per_iteration = 0
        self.min_time_s_per_iteration = 5.0
        # See `BoundedEnvRunner` and `EnvRunners` for what becomes of faults.
        self.env_runner_cls = BoundedEnvRunner
        self.restart_failed_env_runners = True
        self.sample_timeout_s = RolloutSettings().answer_timeout_s
        self.delay_between_env_runner_restarts_s = 2.0

    @abstractmethod
    def pace(self) -> Pace:
        """How sampling and learning take turns."""

    @abstractmethod
    def build_experience(self) -> Experience:
        """What is learned from: without any transition of the policy's own, with all that is given beside them."""

    @property
    def horizon(self) -> int:
        """H: the most env steps that a decision lasts."""
        return 1

    def make_vector_env(self, makers: Makers, autoreset: bool = True) -> LockstepVectorEnv:
        """The environments as the policy sees them; see `LockstepVectorEnv`."""
        return ActionVectorEnv(makers, autoreset=autoreset)

    def spaces(self) -> tuple[Box, Box]:
        """Of the policy's observations and of its decisions."""
        env = self.make_vector_env([lambda: make_env(self.low_level.id, self.low_level.arguments)])
        with contextlib.closing(env):
            return cast(Box, env.single_observation_space), cast(Box, env.single_action_space)

    def require_inputs(self, experience: Mapping[str, Any]) -> None:
        """Raise ArtifactError unless its inputs are those of a checkpoint with this state of `Experience`."""

    def without_rl(self) -> Mapping[str, Self]:
        """Policies that are worth evaluating beside the trained one, as configurations whose RLModule starts as them.

        By name: 'initial' is the one that training starts from, 'posterior' skill behavioural cloning.
        """
        return {}

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> Self:
        """The algorithm that an experiment file describes."""
        rollout, resources = experiment.rollout, experiment.resources
        seed = int(np.random.SeedSequence([experiment.seed, 4]).generate_state(1)[0]) >> 2
        config = (
            cls()
            .environment(experiment.environment.id, env_config=experiment.environment.arguments)
            .env_runners(
                num_env_runners=rollout.num_env_runners,
                num_envs_per_env_runner=rollout.num_envs_per_env_runner,
                rollout_fragment_length=max(1, rollout.decisions_per_fragment // rollout.num_envs_per_env_runner),
                sample_timeout_s=rollout.answer_timeout_s,
                num_cpus_per_env_runner=rollout.cpus_per_env_runner,
                custom_resources_per_env_runner=dict(rollout.env_runner_resources),
            )
            .resources(placement_strategy=rollout.placement)
            .learners(
                num_learners=resources.num_learners,
                num_cpus_per_learner=resources.learner_threads,
                num_gpus_per_learner=1 if resources.use_gpu else 0,
            )
            .reporting(min_time_s_per_iteration=experiment.progress.report_interval_s)
            .debugging(seed=seed, log_level="ERROR")
        )
        config.settings = experiment.algorithm
        config.learner_threads = resources.learner_threads
        if experiment.algorithm.synchronous:
            config.min_time_s_per_iteration = 0.0  # one fragment of each runner: no clock may decide anything
        return config

    def environment(self, env: Any = NotProvided, *, env_config: Any = NotProvided, **kwargs: Any) -> Self:
        """As in RLlib, for the low-level environment: a Gymnasium id or 'module:attribute', and its arguments."""
        if env is not NotProvided:
            self.low_level_env = env
        if env_config is not NotProvided:
            self.low_level_kwargs = dict(env_config)
        return super().environment(ENVIRONMENT, **kwargs)

    def training(self, **kwargs: Any) -> Self:
        """Set fields of `Settings`; RLlib takes the rest, and refuses what is unknown."""
        own = {name: kwargs.pop(name) for name in set(kwargs) & set(self.Settings.model_fields)}
        if own:
            self.settings = self.Settings.model_validate(self.settings.model_dump() | own)
        return super().training(**kwargs)

    @property
    def low_level(self) -> Environment:
        """The low-level environment."""
        return Environment(id=self.low_level_env or "", kwargs=self.low_level_kwargs)

    @property
    def model_settings(self) -> dict[str, Any]:
        """What the RLModule gets as `model_config`, in plain values: `algorithm`, the fields of `settings`."""
        return {"algorithm": self.settings.model_dump()}

    @property
    def record(self) -> dict[str, Any]:
        """As plain values, for checkpoints and env runners, all that decides how the policy acts; see `from_record`."""
        return {"environment": self.low_level.model_dump(), "algorithm": self.settings.model_dump()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The configuration that a `record` was taken of."""
        environment = record["environment"]
        return cls().environment(environment["id"], env_config=environment["kwargs"]).training(**record["algorithm"])

    def validate(self) -> None:
        super().validate()
        if self.low_level_env is None:
            raise ValueError(f"{type(self).__name__} needs .environment(ID)")
        if not isinstance(self, spec_of(self.settings.type).load_config()):  # which env runners would make
            raise ValueError(f"{self.Settings.__name__}.type is {self.settings.type!r}, which is another algorithm")
        self.env_config: dict[str, Any] = {"record": self.record}
        if self.settings.batch_size % max(1, self.num_learners):
            raise ValueError(f"batch_size {self.settings.batch_size} does not divide into {self.num_learners} learners")

    def build_module(self) -> TorchRLModule:
        """The algorithm's RLModule as training starts with it."""
        observations, decisions = self.spaces()
        module: TorchRLModule = self.get_default_rl_module_spec().module_class(
            observation_space=observations,
            action_space=decisions,
            inference_only=False,
            model_config=self.model_settings,
        )
        return module


def config_of(record: Mapping[str, Any]) -> OffPolicyConfig:
    """The configuration of whichever algorithm a `record` was taken of."""
    return spec_of(record["algorithm"]["type"]).load_config().from_record(record)


def make_runner_env(context: Mapping[str, Any]) -> LockstepVectorEnv:
    """The vector environment of one env runner, from RLlib's environment context."""
    torch.set_num_threads(1)
    config = config_of(context["record"])
    environment = config.low_level
    return config.make_vector_env(
        [lambda: make_env(environment.id, environment.arguments)] * context.get("num_envs", 1)
    )


register_env(ENVIRONMENT, make_runner_env)
