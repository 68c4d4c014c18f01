"""What SkiLD's stage 4 learns from: its own skill transitions, and prior data."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from skild_ray.algorithms.pretrained import Pretrained, References, load_demonstration_states, load_skill_model
from skild_ray.algorithms.replay import Replay, draw_batches
from skild_ray.algorithms.reward_scale import RewardScale
from skild_ray.algorithms.skild.settings import SkiLDSettings
from skild_ray.algorithms.stored_transitions import load_transitions, skill_rows
from skild_ray.algorithms.transitions import Rows, episode_rows
from skild_ray.config import Environment, load_experiment
from skild_ray.generation.sources import stored_sources
from skild_ray.stages import DEMONSTRATIONS, DataKind


class SkillExperience:
    """Skill transitions with prior and posterior at their states, evaluated once when they are stored.

    Returns are multiplied by the `reward_scale`. With `demonstration_share` that share of every batch comes from the
    demonstrations as skill transitions, with `task_agnostic_share` that share from the task-agnostic data. With an
    online discriminator a batch also has `demonstration_states` and `replayed_states`, [updates * size,
    observation_dim], for it to tell apart.

    See `skild_ray.algorithms.experience.Experience`.
    """

    def __init__(self, pretrained: Pretrained, settings: SkiLDSettings, low_level: Environment, seed: int) -> None:
        assert settings.discount is not None, "see `SkiLDSettings.with_demonstrations_of`"
        self._pretrained, self._settings = pretrained, settings
        self._references = References(pretrained, settings.posterior_scale)
        skill = pretrained.experiment.skill
        new_replay = functools.partial(
            Replay,
            observation_dim=pretrained.skill_prior.facts["observation_dim"],
            action_dim=skill.latent_dim,
            n_step=settings.n_step,
            discount=settings.discount,
            horizon=skill.horizon,
            columns=dict.fromkeys(References.NAMES, skill.latent_dim),
            later=settings.kl_in_target,
        )
        self.replay = new_replay(settings.replay_capacity, seed=seed)
        self.prior: dict[DataKind, Replay] = {}
        for number, kind in enumerate(settings.shares, 1):
            if kind in settings.replayed:
                episodes = self._prior_skills(kind, low_level)
                self.prior[kind] = new_replay(sum(len(rows["rewards"]) for rows in episodes), seed=seed + number)
                for index, (rows, more) in enumerate(zip(episodes, self._columns(episodes), strict=True)):
                    self.prior[kind].add(str(index), rows | more, ended=True)
        self.reward_scale = RewardScale(settings.warmup_skill_steps if settings.normalize_rewards else None)
        self._demonstration_states = load_demonstration_states(pretrained.demo_discriminator)
        self._rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))

    def add(self, chunks: Sequence[SingleAgentEpisode]) -> None:
        self.store([(chunk, episode_rows(chunk)) for chunk in chunks])

    def store(self, transitions: Sequence[tuple[SingleAgentEpisode, Rows]]) -> None:
        """Store rows of transitions, each with the chunk that they come from."""
        for (chunk, rows), more in zip(transitions, self._columns([rows for _, rows in transitions]), strict=True):
            self.replay.add(chunk.id_, rows | more, chunk.is_done)
        self.reward_scale.measure(self.replay, *self.prior.values())

    def draw(self, updates: int, size: int) -> dict[str, NDArray]:
        given = [(replay, round(size * self._settings.shares[kind])) for kind, replay in self.prior.items()]
        own = size - sum(count for _, count in given)
        drawn = draw_batches([*given, (self.replay, own)], updates)
        drawn["returns"] = drawn["returns"] * np.float32(self.reward_scale.value)
        if self._settings.discriminator_rate > 0:
            rows = self._rng.integers(len(self._demonstration_states), size=updates * size)
            drawn["demonstration_states"] = self._demonstration_states[rows]
            # Not the batch's states, which may be demonstrations: to D they would be both.
            (drawn["replayed_states"],) = self.replay.sample_columns(updates * size, "obs")
        return drawn

    def forget_open_episodes(self) -> None:
        self.replay.forget_open_episodes()

    def get_state(self) -> dict[str, Any]:
        return {
            "replay": self.replay.get_state(),
            "rng": self._rng.bit_generator.state,
            "pretrained": self._pretrained.hashes,
            "reward_scale": self.reward_scale.get_state(),
            "prior": {kind: replay.get_state() for kind, replay in self.prior.items()},
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._pretrained.require(state["pretrained"])
        self.replay.set_state(state["replay"])
        self._rng.bit_generator.state = state["rng"]
        for kind in self.prior.keys() & state["prior"].keys():
            self.prior[kind].set_state(state["prior"][kind])
        self.reward_scale.set_state(state["reward_scale"])

    def _columns(self, chunks: Sequence[Rows]) -> list[Rows]:
        """Prior and posterior of each chunk's states; one forward pass for all, since a call costs more than a row."""
        if not chunks:
            return []
        columns = self._references(np.concatenate([rows["obs"] for rows in chunks]))
        if self._settings.kl_in_target:
            following = self._references(np.concatenate([rows["next_obs"] for rows in chunks]))
            columns |= {f"next_{name}": value for name, value in following.items()}
        ends = np.cumsum([len(rows["obs"]) for rows in chunks])[:-1]
        parts = [np.split(value, ends) for value in columns.values()]
        return [dict(zip(columns, values, strict=True)) for values in zip(*parts, strict=True)]

    def _prior_skills(self, kind: DataKind, low_level: Environment) -> list[Rows]:
        """The data of a kind that the discriminator was trained on as transitions of skills; see `skill_rows`.

        They are read from their data sets again, which the artifacts do not hold.
        """
        pretrained = self._pretrained
        experiment = load_experiment(pretrained.demo_discriminator.path / "config.yaml")
        model = load_skill_model(pretrained.skill_prior)
        rewards = self._settings.replayed[kind]
        episodes = load_transitions(
            stored_sources(experiment, kind), low_level, rewards, successful=kind == DEMONSTRATIONS
        )
        horizon = pretrained.experiment.skill.horizon
        return [part for rows in episodes for part in skill_rows(rows, model, horizon)]
