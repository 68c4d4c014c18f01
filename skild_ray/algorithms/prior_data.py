"""Algorithms that learn from prior data's transitions beside their own: their configuration and experience."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from skild_ray.algorithms.earlier_runs import earlier_transitions, open_earlier
from skild_ray.algorithms.off_policy_config import OffPolicyConfig
from skild_ray.algorithms.replay import Replay, draw_batches
from skild_ray.algorithms.stored_transitions import load_transitions
from skild_ray.algorithms.transitions import Rows, episode_rows
from skild_ray.config import Experiment, Source
from skild_ray.generation.sources import named_sources
from skild_ray.runs.artifacts import Artifact
from skild_ray.stages import DEMONSTRATIONS, TASK_AGNOSTIC, DataKind

REPLAYS = "replays"
"""Name of the prior data that earlier runs collected, beside the kinds of stored data."""


class PriorData(NamedTuple):
    """Transitions that were recorded before."""

    episodes: Sequence[Rows]
    """The transitions of each episode, in terms of the policy's decisions."""
    share: float
    """Of every batch that is drawn from them."""


class PriorDataConfig(OffPolicyConfig):
    """Configuration of an algorithm that reads stored data of its experiment: demonstrations, task-agnostic data, both.

    Its settings say by `replayed` which of them it learns from, and whether it needs their rewards, and by
    `replayed_runs` from which earlier runs' replays.
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class)
        self.prior_sources: dict[str, list[dict[str, Any]]] = {}

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> Self:
        """The algorithm that an experiment file describes; its prior data are read where they are stored."""
        config = super().from_experiment(experiment)
        for kind in config.settings.replayed:
            config._name(kind, named_sources(experiment, kind))
        return config

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        config = super().from_record(record)
        config.prior_sources = dict(record["sources"])
        return config

    @property
    def record(self) -> dict[str, Any]:
        return super().record | {"sources": self.prior_sources}

    def demonstrations(self, *sources: str | Source) -> Self:
        """Name the stored data sets that hold the demonstrations; see `load_rewarded_episodes` for their rewards."""
        return self._name(DEMONSTRATIONS, sources)

    def task_agnostic(self, *sources: str | Source) -> Self:
        """Name the stored data sets that hold task-agnostic data, to which `for_task` gives the task's rewards."""
        return self._name(TASK_AGNOSTIC, sources)

    def sources(self, kind: DataKind) -> Sequence[Source]:
        """The stored data sets that were named."""
        return [Source.model_validate(source) for source in self.prior_sources.get(kind, [])]

    @property
    def experience_class(self) -> "type[PriorDataExperience]":
        """What holds all transitions."""
        return PriorDataExperience

    def transitions(self, kind: DataKind) -> list[Rows]:
        """The transitions of each episode of the prior data of a kind, by the environment's own actions.

        Raises:
            DataError: see `load_transitions`.
        """
        return load_transitions(
            self.sources(kind),
            self.low_level,
            self.settings.replayed[kind],
            successful=kind == DEMONSTRATIONS,
            remedy=self.settings.without_rewards,
        )

    def earlier_runs(self) -> Sequence[Artifact]:
        """Stage 4 of each of the `replayed_runs`.

        Raises:
            ArtifactError: see `open_earlier`.
        """
        return [open_earlier(path, self.low_level, over_skills=False) for path in self.settings.replayed_runs]

    def prior_data_experience(
        self, shares: Mapping[DataKind, float], replay_share: float = 0.0, **arguments: Any
    ) -> "PriorDataExperience":
        """The policy's own transitions beside every kind of prior data that is `replayed`, and those of earlier runs.

        Args:
            shares: of every batch.
            replay_share: of every batch, of all earlier runs together.
            arguments: see `PriorDataExperience` and `Replay`.

        Raises:
            SkildError: see `load_transitions` and `earlier_runs`.
        """
        dims = [space.shape[0] for space in self.spaces()]
        earlier = [rows for artifact in self.earlier_runs() for rows in earlier_transitions(artifact, *dims)]
        prior: dict[str, PriorData] = {
            kind: PriorData(self.transitions(kind), share)
            for kind, share in shares.items()
            if kind in self.settings.replayed
        }
        if earlier:
            prior[REPLAYS] = PriorData(earlier, replay_share)
        return self.experience_class(
            prior,
            observation_dim=dims[0],
            action_dim=dims[1],
            seed=self.seed or 0,
            horizon=self.horizon,
            **arguments,
        )

    def validate(self) -> None:
        super().validate()
        if missing := [kind for kind in self.settings.replayed if not self.prior_sources.get(kind)]:
            raise ValueError(f"{type(self).__name__} needs .{missing[0]}(DATASET)")

    def _name(self, kind: DataKind, sources: Sequence[str | Source]) -> Self:
        found = [Source(dataset=source) if isinstance(source, str) else source for source in sources]
        self.prior_sources = self.prior_sources | {kind: [source.model_dump() for source in found]}
        return self


class PriorDataExperience:
    """The policy's own transitions, beside replays of prior data that are never overwritten.

    A batch has a fixed number of transitions of every replay. With `annealed_over` = N, shares fall linearly with the
    env steps t of the policy: share (1 - t / N), and 0 from N on.

    See `skild_ray.algorithms.experience.Experience`.

    Args:
        prior: prior data by name.
        capacity: own transitions kept.
        seed: of what is drawn.
        annealed_over: N above; None: shares are constant.
        reward_bias: added to the reward of every env step.
        inputs: hash of the weights of each artifact that says what a decision is, by stage, for checkpoints.
        columns: of a batch, see `Replay`; default: all.
        replay: other arguments of all replays.
    """

    def __init__(
        self,
        prior: Mapping[str, PriorData],
        *,
        capacity: int,
        seed: int,
        annealed_over: int | None = None,
        reward_bias: float = 0.0,
        inputs: Mapping[str, str] | None = None,
        columns: Sequence[str] | None = None,
        **replay: Any,
    ) -> None:
        self._inputs = dict(inputs or {})
        self._shares = {name: data.share for name, data in prior.items()}
        self._annealed_over, self._reward_bias, self._columns = annealed_over, reward_bias, columns
        self._env_steps = 0
        capacities = capacity, *(sum(len(rows["rewards"]) for rows in data.episodes) for data in prior.values())
        seeds = np.random.SeedSequence([seed, 2]).generate_state(len(capacities))
        self.replay, *others = (
            Replay(size, seed=int(own_seed), columns={}, **replay)
            for size, own_seed in zip(capacities, seeds, strict=True)
        )
        self._prior = dict(zip(prior, others, strict=True))
        for name, data in prior.items():
            for index, rows in enumerate(data.episodes):
                self._prior[name].add(str(index), self._biased(rows), ended=True)

    def add(self, chunks: Sequence[SingleAgentEpisode]) -> None:
        for chunk in chunks:
            rows = episode_rows(chunk)
            self._env_steps += int(rows["k"].sum())
            self.replay.add(chunk.id_, self._biased(rows), chunk.is_done)

    def draw(self, updates: int, size: int) -> dict[str, NDArray]:
        given = self._given(size)
        own = size - sum(count for _, count in given)
        return draw_batches([*given, (self.replay, own)], updates, self._columns)

    def _given(self, size: int) -> list[tuple[Replay, int]]:
        """The replays of prior data, and how many of the first rows of a batch of that size come from each."""
        left = 1.0 if self._annealed_over is None else max(0.0, 1 - self._env_steps / self._annealed_over)
        return [(replay, round(size * self._shares[name] * left)) for name, replay in self._prior.items()]

    def prior_observations(self) -> NDArray:
        """All states of the prior data, [N, observation_dim]."""
        states = [replay.recent()["obs"] for replay in self._prior.values()]
        return np.concatenate(states) if states else np.empty((0, 0), np.float32)

    def forget_open_episodes(self) -> None:
        self.replay.forget_open_episodes()

    def get_state(self) -> dict[str, Any]:
        return {
            "replay": self.replay.get_state(),
            "prior": {name: replay.get_state() for name, replay in self._prior.items()},
            "env_steps": self._env_steps,
            "inputs": self._inputs,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.replay.set_state(state["replay"])
        for name, replay in self._prior.items():
            replay.set_state(state["prior"][name])
        self._env_steps = state["env_steps"]

    def _biased(self, rows: Rows) -> Rows:
        return rows | {"rewards": rows["rewards"] + np.float32(self._reward_bias) * rows["k"].astype(np.float32)}
