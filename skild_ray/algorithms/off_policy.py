"""What the algorithms of stage 4 share: their configuration, and the loop of sampling and learning around a replay."""

import functools
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm import Algorithm as RLlibAlgorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from skild_ray.algorithms.replay import SkillReplay
from skild_ray.algorithms.transitions import Rows, episode_rows
from skild_ray.config import Experiment, Section
from skild_ray.envs.skill_env import SkillVectorEnv

UPDATES_PER_CALL = 8
EPISODE_WINDOW = 50
"""Finished episodes that a logged value is a mean of, once there are so many."""
PROBE_INTERVAL_S = 30.0
FETCH_WAIT_S = 0.005
SAMPLE_TAG = "sample"


class OffPolicyConfig(AlgorithmConfig):
    """Configuration of an `OffPolicy` algorithm.

    `training` takes every field of the algorithm's section of `skild_ray.config`, which documents them, and nothing
    unknown.
    """

    section: ClassVar[type[Section]]
    """The settings of the algorithm."""
    vector_env: ClassVar[str]
    """Name under which `make_vector_env` is registered."""

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class)
        for name, field in self.section.model_fields.items():
            setattr(self, name, field.get_default(call_default_factory=True))
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
        # A lost runner is restarted without stalling the others, a long skill is never thrown away.
        self.restart_failed_sub_environments = True
        self.restart_failed_env_runners = True
        self.sample_timeout_s = None
        self.env_runner_health_probe_timeout_s = 2.0
        self.delay_between_env_runner_restarts_s = 2.0

    @staticmethod
    @abstractmethod
    def make_vector_env(context: Mapping[str, Any]) -> SkillVectorEnv:
        """The vector environment of one env runner, from RLlib's environment context."""

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> Self:
        """The algorithm that an experiment file describes."""
        rollout, resources = experiment.rollout, experiment.resources
        seed = int(np.random.SeedSequence([experiment.seed, 4]).generate_state(1)[0]) >> 2
        config = (
            cls()
            .environment(experiment.environment.id, env_config=dict(experiment.environment.kwargs))
            .env_runners(
                num_env_runners=rollout.num_env_runners,
                num_envs_per_env_runner=rollout.num_envs_per_env_runner,
                rollout_fragment_length=max(1, rollout.skill_steps_per_fragment // rollout.num_envs_per_env_runner),
            )
            .learners(num_learners=resources.num_learners, num_gpus_per_learner=1 if resources.use_gpu else 0)
            .reporting(min_time_s_per_iteration=experiment.progress.report_interval_s)
            .debugging(seed=seed, log_level="ERROR")
        )
        config.learner_threads = resources.learner_threads
        return config

    def environment(self, env: Any = NotProvided, *, env_config: Any = NotProvided, **kwargs: Any) -> Self:
        """As in RLlib, for the low-level environment: a Gymnasium id or 'module:attribute', and its arguments."""
        if env is not NotProvided:
            self.low_level_env = env
        if env_config is not NotProvided:
            self.low_level_kwargs = dict(env_config)
        return super().environment(self.vector_env, **kwargs)

    def training(self, **kwargs: Any) -> Self:
        """Set fields of the algorithm's section; RLlib takes the rest, and refuses what is unknown."""
        for name in set(kwargs) & set(self.section.model_fields):
            setattr(self, name, kwargs.pop(name))
        return super().training(**kwargs)

    def validated(self) -> Any:
        """The algorithm's section with the fields that were set."""
        return self.section(**{name: getattr(self, name) for name in self.section.model_fields})

    def validate(self) -> None:
        super().validate()
        self.env_config: dict[str, Any] = {"id": self.low_level_env, "kwargs": self.low_level_kwargs}
        if self.batch_size % max(1, self.num_learners):
            raise ValueError(f"batch_size {self.batch_size} does not divide into {self.num_learners} learners")


class Pace(NamedTuple):
    """How sampling and learning take turns. A step is one decision of the policy, worth up to `horizon` env steps."""

    total_env_steps: int
    horizon: int
    batch_size: int
    samples_per_step: float
    """Replayed transitions for each new one."""
    warmup_steps: int
    """Steps that are collected before the first update."""
    synchronous: bool


class OffPolicy(RLlibAlgorithm):
    """Off-policy learning, sampling and learning side by side.

    Each fragment of steps that arrives owes `samples_per_step` replayed transitions a step; they are paid in updates of
    `batch_size` before the next fragments are taken in, so the ratio is exact. Unless `synchronous`, env runners
    already collect their next fragment meanwhile, with the weights of the moment it was requested. A runner has one
    request open at most, which bounds how stale a policy can be, and no more requests are made than `total_env_steps`
    allow.

    An algorithm gives its `pace` and `replay`, and says what is stored (`_rows`), drawn (`_draw`), and checkpointed
    besides (`_own_state`).
    """

    config: OffPolicyConfig
    replay: SkillReplay

    @property
    @abstractmethod
    def pace(self) -> Pace: ...

    @abstractmethod
    def _rows(self, episode: SingleAgentEpisode, rows: Rows) -> Rows | None:
        """What of an episode's chunk is stored: `rows` with the replay's extra columns, or nothing yet."""

    @abstractmethod
    def _draw(self, updates: int, size: int) -> dict[str, NDArray]:
        """The columns of so many batches of `size`, one batch behind the other."""

    @abstractmethod
    def _own_state(self) -> dict[str, Any]:
        """What a checkpoint holds besides the replay and the counts."""

    @abstractmethod
    def _set_own_state(self, state: Mapping[str, Any]) -> None: ...

    def setup(self, config: OffPolicyConfig) -> None:
        super().setup(config)
        torch.set_num_threads(config.learner_threads if config.num_learners == 0 else 1)
        # A runner steps all its environments until it has a fragment; resets in between make it overshoot.
        envs = self.config.num_envs_per_env_runner
        self._request_env_steps = (self.config.rollout_fragment_length * envs + envs - 1) * self.pace.horizon
        self._requested: set[int] = set()
        self._owed = 0.0
        self._counts = {"env_steps": 0, "skill_steps": 0, "updates": 0, "episodes": 0}
        self._open_episodes: dict[str, tuple[int, float]] = {}
        self._recent: dict[str, deque[float]] = {}
        self._probed = float("-inf")

    @property
    def finished(self) -> bool:
        """Whether another request for experience could exceed `total_env_steps`."""
        return self._counts["env_steps"] + self._request_env_steps > self.pace.total_env_steps

    @property
    def counts(self) -> Mapping[str, int]:
        """Environment steps, skill steps (decisions of the policy), updates and finished episodes so far."""
        return self._counts

    @property
    def recent_episodes(self) -> Mapping[str, Sequence[float]]:
        """Success, sub-tasks, return and length of the newest finished episodes, EPISODE_WINDOW of them at most."""
        return self._recent

    def training_step(self) -> None:
        """Take in what the env runners have, set them to work again, then learn until nothing is owed."""
        pace = self.pace
        ahead = not pace.synchronous and self.env_runner_group.num_remote_env_runners() > 0
        before = self.replay.added
        for episode in self._fetch() if ahead else self._sample_now():
            self._store(episode)
        if ahead:
            self._request()
        if self.replay.added >= pace.warmup_steps:
            self._owed += (self.replay.added - before) * pace.samples_per_step
        self._learn()
        for name, value in self._counts.items():
            self.metrics.log_value(name, value, window=1)
        # Not before every environment can have finished one: the first to finish are the fast, successful ones.
        envs = max(1, self.config.num_env_runners) * self.config.num_envs_per_env_runner
        if self._counts["episodes"] >= min(EPISODE_WINDOW, envs):
            for name, values in self._recent.items():  # RLlib's own windows are emptied by every report
                self.metrics.log_value(name, float(np.mean(values)), window=1)
        self.metrics.log_value("replay_size", len(self.replay), window=1)

    # --- sampling ---

    def _weights(self) -> dict[str, Any]:
        module = f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"
        state: dict[str, Any] = self.learner_group.get_state(components=[module], inference_only=True)
        return state[COMPONENT_LEARNER]

    def _sample_now(self) -> list[SingleAgentEpisode]:
        """One fragment of every runner, with the newest weights."""
        if self.finished:
            return []
        group = self.env_runner_group
        kwargs = {"state": self._weights()}
        if group.num_remote_env_runners() == 0:
            results = [_sample(group.local_env_runner, **kwargs)]
        else:
            ids = group.healthy_env_runner_ids()[: self._affordable(0)]
            results = group.foreach_env_runner(
                _sample, kwargs={"state": ray.put(kwargs["state"])}, local_env_runner=False, remote_worker_ids=ids
            )
        return self._unpack(results)

    def _fetch(self) -> list[SingleAgentEpisode]:
        """The fragments that are ready, after a short wait if there is none."""
        fetch = self.env_runner_group.fetch_ready_async_reqs
        # A wait lasts until all runners have finished, so it must not begin while one of them has.
        ready = fetch(tags=SAMPLE_TAG) or fetch(tags=SAMPLE_TAG, timeout_seconds=FETCH_WAIT_S)
        self._requested -= {index for index, _ in ready}
        return self._unpack([result for _, result in ready])

    def _request(self) -> None:
        """Set the idle runners to work on their next fragment, with the newest weights."""
        group = self.env_runner_group
        healthy = set(group.healthy_env_runner_ids())
        self._requested &= healthy
        idle = sorted(healthy - self._requested)[: self._affordable(len(self._requested))]
        if idle:  # an empty list would mean all runners to RLlib
            state = ray.put(self._weights())
            group.foreach_env_runner_async(_sample, SAMPLE_TAG, kwargs={"state": state}, remote_worker_ids=idle)
            self._requested |= set(idle)

    def _affordable(self, requested: int) -> int:
        """How many more requests fit into the budget of environment steps."""
        left = self.pace.total_env_steps - self._counts["env_steps"]
        return max(0, left // self._request_env_steps - requested)

    def _unpack(self, results: Sequence[tuple[list[SingleAgentEpisode], Any]]) -> list[SingleAgentEpisode]:
        if results:
            self.metrics.aggregate([metrics for _, metrics in results], key=ENV_RUNNER_RESULTS)
        return [episode for episodes, _ in results for episode in episodes]

    def _store(self, episode: SingleAgentEpisode) -> None:
        if len(episode) == 0:
            return
        rows = episode_rows(episode)
        env_steps = int(rows["k"].sum())
        self._counts["env_steps"] += env_steps
        self._counts["skill_steps"] += len(episode)
        self._log_episode(episode, env_steps)
        stored = self._rows(episode, rows)
        if stored is not None:
            self.replay.add(episode.id_, stored, episode.is_done)

    def _log_episode(self, episode: SingleAgentEpisode, env_steps: int) -> None:
        """Length, return, success and sub-tasks of an episode once it has ended."""
        length, episode_return = self._open_episodes.pop(episode.id_, (0, 0.0))
        length, episode_return = length + env_steps, episode_return + episode.get_return()
        if not episode.is_done:
            self._open_episodes[episode.id_] = length, episode_return
            return
        self._counts["episodes"] += 1
        last = episode.get_infos(-1)
        values = {name: last[name] for name in ("success", "subtasks_solved")}
        values |= {"episode_return": episode_return, "episode_env_steps": length}
        for name, value in values.items():
            self._recent.setdefault(name, deque(maxlen=EPISODE_WINDOW)).append(float(value))

    # --- learning ---

    def _learn(self) -> None:
        size, learners = self.pace.batch_size, max(1, self.config.num_learners)
        while self._owed >= size:
            updates = min(int(self._owed // size), UPDATES_PER_CALL)
            self._owed -= updates * size
            drawn = self._draw(updates, size)
            batch = SampleBatch({name: torch.from_numpy(column) for name, column in drawn.items()})
            results = self.learner_group.update(
                batch=MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=updates * size),
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self._counts["skill_steps"]},
                minibatch_size=size // learners if updates > 1 else None,
                num_epochs=1,
            )
            self._counts["updates"] += updates
            self.metrics.aggregate(results, key=LEARNER_RESULTS)

    # --- faults and checkpoints ---

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Probe lost runners now and then only: each probe waits for runners that have no node to start on."""
        if env_runner_group is not self.env_runner_group:
            return super().restore_env_runners(env_runner_group)
        now = time.monotonic()
        if now - self._probed < PROBE_INTERVAL_S and env_runner_group.num_healthy_remote_env_runners() > 0:
            return []
        self._probed = now
        restored: list[int] = super().restore_env_runners(env_runner_group)
        self._requested -= set(restored)
        if restored:  # an empty list would mean all runners to RLlib
            self._start_anew(restored)
        return restored

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        state["skild"] = {
            "replay": self.replay.get_state(),
            "owed": self._owed,
            "counts": dict(self._counts),
            "torch_rng": torch.get_rng_state(),
            "environment": {"id": self.config.low_level_env, "kwargs": self.config.low_level_kwargs},
        } | self._own_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        self._accept_older_weights(learners="learner_group" in state)
        super().set_state(state)
        if own := state.get("skild"):
            self._set_own_state(own)
            self.replay.set_state(own["replay"])
            self.replay.forget_open_episodes()
            self._owed = own["owed"]
            self._counts = dict(own["counts"])
            torch.set_rng_state(own["torch_rng"])
            self._open_episodes, self._recent = {}, {}
            self._start_anew(None)
            self.env_runner_group.fetch_ready_async_reqs(tags=SAMPLE_TAG)  # what was asked for before
            self._requested.clear()

    def _start_anew(self, runners: list[int] | None) -> None:
        """Let these env runners (None: all) drop what they are at and begin episodes that nobody has seen.

        RLlib seeds a runner by its index alone, so that one which is restarted would play its first episodes again.
        """
        seed = functools.partial(_reseed, entropy=(self.config.seed or 0, self._counts["env_steps"]))
        self.env_runner_group.foreach_env_runner(seed, remote_worker_ids=runners, local_env_runner=runners is None)

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        self._accept_older_weights()
        super().restore_from_path(path, *args, **kwargs)

    def _accept_older_weights(self, learners: bool = False) -> None:
        """Let a live algorithm go back to an older checkpoint: RLlib drops weights older than those it holds."""
        for group in (self.env_runner_group, self.eval_env_runner_group):
            if group:
                group.foreach_env_runner(_forget_weights_version)
        if learners:
            self.learner_group.foreach_learner(func=_forget_weights_version)


def _sample(runner: Any, state: dict[str, Any]) -> tuple[list[SingleAgentEpisode], Any]:
    """Runs on an env runner: take the weights, collect a fragment."""
    runner.set_state(state)
    return runner.sample(), runner.get_metrics()


def _reseed(runner: Any, entropy: tuple[int, int]) -> None:
    """Runs on an env runner: new seeds for its environments and its policy, and no episode in progress."""
    seed = int(np.random.SeedSequence([*entropy, runner.worker_index]).generate_state(1)[0]) >> 2
    torch.manual_seed(seed)
    runner._seed, runner._needs_initial_reset = seed, True


def _forget_weights_version(holder: Any) -> None:
    holder._weights_seq_no = 0
