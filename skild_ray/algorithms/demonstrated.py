"""Algorithms that learn from the demonstrations' transitions beside their own: their configuration and experience."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from skild_ray.algorithms.demonstrations import load_demonstrations
from skild_ray.algorithms.off_policy_config import OffPolicyConfig
from skild_ray.algorithms.replay import Replay, draw_batches
from skild_ray.algorithms.transitions import Rows, episode_rows
from skild_ray.config import Experiment, Source
from skild_ray.generation.sources import named_demonstrations


class DemonstratedConfig(OffPolicyConfig):
    """Configuration of an algorithm that reads the stored demonstrations of its experiment.

    Its settings say by `replayed_demonstrations` whether it needs their rewards.
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class)
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

    def demonstrations(self, *sources: str | Source) -> Self:
        """Name the stored data sets that hold the demonstrations; see `load_rewarded_episodes` for their rewards."""
        found = [Source(dataset=source) if isinstance(source, str) else source for source in sources]
        self.demonstration_sources = [source.model_dump() for source in found]
        return self

    @property
    def sources(self) -> Sequence[Source]:
        """What `demonstrations` named."""
        return [Source.model_validate(source) for source in self.demonstration_sources]

    def demonstrated(self) -> list[Rows]:
        """The transitions of each demonstrated episode, by the environment's own actions.

        Raises:
            DataError: see `load_demonstrations`.
        """
        rewarded = self.settings.replayed_demonstrations == "with rewards"
        return load_demonstrations(self.sources, self.low_level, rewarded)

    def validate(self) -> None:
        super().validate()
        if not self.demonstration_sources:
            raise ValueError(f"{type(self).__name__} needs .demonstrations(DATASET)")


class DemonstratedExperience:
    """The policy's own transitions, beside a replay of the demonstrations that is never overwritten.

    See `skild_ray.algorithms.experience.Experience`.

    Args:
        demonstrations: transitions of each episode, in terms of the policy's decisions.
        share: of every batch that is drawn from the demonstrations.
        reward_bias: added to the reward of every env step.
        capacity: own transitions kept.
        seed: of what is drawn.
        columns: of a batch, see `Replay`; default: all.
        replay: other arguments of both replays.
    """

    def __init__(
        self,
        demonstrations: Sequence[Rows],
        *,
        share: float,
        reward_bias: float = 0.0,
        capacity: int,
        seed: int,
        columns: Sequence[str] | None = None,
        **replay: Any,
    ) -> None:
        self._share, self._columns, self._reward_bias = share, columns, reward_bias
        capacities = capacity, sum(len(rows["rewards"]) for rows in demonstrations)
        seeds = np.random.SeedSequence([seed, 2]).generate_state(2)
        observation_dim, action_dim = (demonstrations[0][name].shape[1] for name in ("obs", "actions"))
        self.replay, self._demonstrations = (
            Replay(size, observation_dim, action_dim, seed=int(own_seed), columns={}, **replay)
            for size, own_seed in zip(capacities, seeds, strict=True)
        )
        for index, rows in enumerate(demonstrations):
            self._demonstrations.add(str(index), self._biased(rows), ended=True)

    def add(self, chunks: Sequence[SingleAgentEpisode]) -> None:
        for chunk in chunks:
            self.replay.add(chunk.id_, self._biased(episode_rows(chunk)), chunk.is_done)

    def draw(self, updates: int, size: int) -> dict[str, NDArray]:
        given = round(size * self._share)
        return draw_batches([(self._demonstrations, given), (self.replay, size - given)], updates, self._columns)

    def prior_observations(self) -> NDArray:
        """The states of the demonstrations, [N, observation_dim]."""
        return self._demonstrations.recent()["obs"]

    def forget_open_episodes(self) -> None:
        self.replay.forget_open_episodes()

    def get_state(self) -> dict[str, Any]:
        return {"replay": self.replay.get_state(), "demonstrations": self._demonstrations.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self.replay.set_state(state["replay"])
        self._demonstrations.set_state(state["demonstrations"])

    def _biased(self, rows: Rows) -> Rows:
        return rows | {"rewards": rows["rewards"] + np.float32(self._reward_bias) * rows["k"].astype(np.float32)}
