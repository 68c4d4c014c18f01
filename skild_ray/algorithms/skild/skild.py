"""SkiLD's stage 4 as an RLlib algorithm: its configuration, and what it stores and draws."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.tune.registry import register_env

from skild_ray.algorithms.demonstrations import load_demonstrations, skill_rows
from skild_ray.algorithms.off_policy import OffPolicy, OffPolicyConfig, Pace
from skild_ray.algorithms.pretrained import (
    Pretrained,
    References,
    load_decoder,
    load_demonstration_states,
    load_skill_model,
)
from skild_ray.algorithms.replay import SkillReplay, draw_batches
from skild_ray.algorithms.skild.skild_learner import SkiLDTorchLearner
from skild_ray.algorithms.skild.skild_rl_module import SkiLDTorchRLModule
from skild_ray.algorithms.transitions import Rows, ShiftedTransitions
from skild_ray.config import Algorithm, Experiment, load_experiment
from skild_ray.data.sources import stored_demonstrations
from skild_ray.envs.registry import make_env
from skild_ray.envs.skill_env import SkillVectorEnv

SKILL_ENV = "skild_ray/skills"


def make_skill_env(context: Mapping[str, Any]) -> SkillVectorEnv:
    """The skill-level vector environment of one env runner, from RLlib's environment context."""
    torch.set_num_threads(1)
    pretrained = Pretrained.open(context["run_dir"])
    skill, quirks = pretrained.experiment.skill, context["reference_quirks"]
    return SkillVectorEnv(
        [lambda: make_env(context["id"], context["kwargs"])] * context.get("num_envs", 1),
        load_decoder(pretrained.skill_prior),
        skill.latent_dim,
        skill.horizon,
        squash="squashed_decoder" in quirks,
        trace="shifted_transitions" in quirks,
    )


register_env(SKILL_ENV, make_skill_env)


class SkiLDConfig(OffPolicyConfig):
    """Configuration of `SkiLD`.

        config = (
            SkiLDConfig()
            .environment("skild_ray/Maze-v0", env_config={"max_episode_steps": 2000})
            .pretrained(run_dir="runs/maze")
            .env_runners(num_env_runners=2, num_envs_per_env_runner=16)
            .training(alpha=2.0, n_step=8)
        )
        algo = config.build_algo()

    `training` takes every field of `skild_ray.config.Algorithm`, which documents them, and nothing unknown.
    """

    section = Algorithm
    version = 1
    vector_env = SKILL_ENV
    make_vector_env = staticmethod(make_skill_env)

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or SkiLD)
        self.run_dir: str | None = None

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> Self:
        """The algorithm that an experiment file describes, on the artifacts in its run directory."""
        config = super().from_experiment(experiment).training(**experiment.algorithm.model_dump())
        return config.pretrained(run_dir=str(experiment.run_dir.resolve()))

    def pretrained(self, *, run_dir: str) -> Self:
        """Name the folder that holds the artifacts of stages 1 to 3."""
        self.run_dir = str(Path(os.path.expanduser(run_dir)).resolve())
        return self

    @property
    def settings(self) -> Algorithm:
        """The fields of `Algorithm`, validated."""
        settings: Algorithm = self.validated()
        return settings

    def validate(self) -> None:
        super().validate()
        if self.run_dir is None or self.low_level_env is None:
            raise ValueError("SkiLDConfig needs .environment(ID) and .pretrained(run_dir=DIR)")
        self.env_config |= {"run_dir": self.run_dir, "reference_quirks": self.settings.reference_quirks}

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=SkiLDTorchRLModule)

    def get_default_learner_class(self) -> type:
        return SkiLDTorchLearner

    @property
    def model_settings(self) -> dict[str, Any]:
        return {"run_dir": self.run_dir, "algorithm": self.settings.model_dump()}


class SkiLD(OffPolicy):
    """Learning over skills: a step is one skill, worth up to H environment steps."""

    config: SkiLDConfig

    @classmethod
    def get_default_config(cls) -> SkiLDConfig:
        return SkiLDConfig()

    def setup(self, config: SkiLDConfig) -> None:
        self._pretrained = pretrained = Pretrained.open(config.run_dir or "")
        self._horizon = pretrained.experiment.skill.horizon
        self.settings = settings = config.settings
        super().setup(config)
        self._references = References(pretrained, settings.posterior_scale)
        latent_dim = pretrained.experiment.skill.latent_dim
        seed = config.seed or 0
        new_replay = functools.partial(
            SkillReplay,
            observation_dim=pretrained.skill_prior.facts["observation_dim"],
            latent_dim=latent_dim,
            n_step=settings.n_step,
            discount=settings.discount,
            horizon=self._horizon,
            columns=dict.fromkeys(References.NAMES, latent_dim),
            later=settings.kl_in_target,
        )
        self.replay = new_replay(settings.replay_capacity, seed=seed)
        self._demonstrated: SkillReplay | None = None
        if settings.demonstration_share:
            demonstrated = self._demonstrated_skills()
            self._demonstrated = new_replay(sum(len(rows["rewards"]) for rows in demonstrated), seed=seed + 1)
            for index, (rows, more) in enumerate(zip(demonstrated, self._more_columns(demonstrated), strict=True)):
                self._demonstrated.add(str(index), rows | more, ended=True)
        self._shift = ShiftedTransitions() if "shifted_transitions" in settings.reference_quirks else None
        self._demonstrations = load_demonstration_states(pretrained.demo_discriminator)
        self._rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))

    @property
    def pace(self) -> Pace:
        settings = self.settings
        return Pace(
            settings.total_env_steps,
            self._horizon,
            settings.batch_size,
            settings.samples_per_skill_step,
            settings.warmup_skill_steps,
            settings.synchronous,
        )

    def _rows(self, episode: SingleAgentEpisode, rows: Rows) -> Rows | None:
        return self._shift(episode) if self._shift else rows

    def _more_columns(self, chunks: Sequence[Rows]) -> list[Rows]:
        columns = self._references(np.concatenate([rows["obs"] for rows in chunks]))
        if self.settings.kl_in_target:
            following = self._references(np.concatenate([rows["next_obs"] for rows in chunks]))
            columns |= {f"next_{name}": value for name, value in following.items()}
        ends = np.cumsum([len(rows["obs"]) for rows in chunks])[:-1]
        parts = [np.split(value, ends) for value in columns.values()]
        return [dict(zip(columns, values, strict=True)) for values in zip(*parts, strict=True)]

    def _demonstrated_skills(self) -> list[Rows]:
        """The demonstrations that the discriminator was trained on as transitions of skills; see `skill_rows`.

        They are read from their data sets again, which the artifacts do not hold.
        """
        pretrained = self._pretrained
        experiment = load_experiment(pretrained.demo_discriminator.path / "config.yaml")
        model = load_skill_model(pretrained.skill_prior)
        sources = stored_demonstrations(experiment)
        episodes = load_demonstrations(sources, self.config.low_level, self.settings.uses_env_reward)
        return [part for rows in episodes for part in skill_rows(rows, model, self._horizon)]

    def _draw(self, updates: int, size: int) -> dict[str, NDArray]:
        if self._demonstrated is None:
            drawn = self.replay.sample(updates * size)
        else:
            given = round(size * self.settings.demonstration_share)
            drawn = draw_batches([(self._demonstrated, given), (self.replay, size - given)], updates)
        if self.settings.discriminator_rate > 0:
            rows = self._rng.integers(len(self._demonstrations), size=updates * size)
            drawn["demonstration_states"] = self._demonstrations[rows]
            # Not the batch's states, which may be demonstrations: to D they would be both.
            drawn["replayed_states"] = self.replay.sample_observations(updates * size)
        return drawn

    def _own_state(self) -> dict[str, Any]:
        state = {"rng": self._rng.bit_generator.state, "pretrained": self._pretrained.hashes}
        if self._demonstrated is not None:
            state["demonstrated"] = self._demonstrated.get_state()
        return state

    def _set_own_state(self, state: Mapping[str, Any]) -> None:
        self._pretrained.require(state["pretrained"])
        self._rng.bit_generator.state = state["rng"]
        if self._demonstrated is not None and "demonstrated" in state:
            self._demonstrated.set_state(state["demonstrated"])

    def _forget_open_episodes(self) -> None:
        super()._forget_open_episodes()
        if self._shift:
            self._shift = ShiftedTransitions()
