"""What the algorithms of stage 4 share: the loop of sampling and learning around an experience."""

import functools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm as RLlibAlgorithm
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME

from skild_ray.algorithms.env_runners import BoundedEnvRunner, EnvRunners, Fragment
from skild_ray.algorithms.experience import Experience
from skild_ray.algorithms.off_policy_config import OffPolicyConfig
from skild_ray.algorithms.replay import Replay, learner_shares
from skild_ray.algorithms.rllib_internals import env_runner_placement, forget_weights_version, learner_index

UPDATES_PER_CALL = 8
OFFLINE_UPDATES_PER_STEP = 80
EPISODE_WINDOW = 50
"""Finished episodes that a logged value is a mean of, once there are so many."""


class OffPolicy(RLlibAlgorithm):
    """Off-policy learning, sampling and learning side by side.

    Each fragment that arrives owes `samples_per_decision` replayed transitions a decision; they are paid in updates of
    `batch_size` before the next fragments are taken in, so the ratio is exact. Before the first fragment is asked for,
    `offline_updates` are made from what the experience starts with. Unless `synchronous`, env runners
    already collect their next fragment meanwhile, with the weights of the moment it was requested. A runner has one
    request open at most, which bounds how stale a policy can be, and no more requests are made than `total_env_steps`
    allow.

    A checkpoint holds everything but the environments, whose state nobody can save. What is restored therefore begins
    new episodes, with seeds that follow from the run's seed and its steps so far. A synchronous run does the same when
    it writes a checkpoint, so with one runner, or none, it goes on bit for bit like one that was restored from there.

    Its configuration says what an algorithm is: its `pace`, what it learns from (`build_experience`), its RLModule and
    its Learner.
    """

    config: OffPolicyConfig
    experience: Experience

    def setup(self, config: OffPolicyConfig) -> None:
        self.pace = config.pace()
        with env_runner_placement(config.placement_strategy):
            super().setup(config)
        torch.set_num_threads(config.learner_threads if config.num_learners == 0 else 1)
        # A runner steps all its environments until it has a fragment; resets in between make it overshoot.
        envs = self.config.num_envs_per_env_runner
        self._request_env_steps = (self.config.rollout_fragment_length * envs + envs - 1) * self.pace.horizon
        self._runners = EnvRunners(self.env_runner_group, config.sample_timeout_s)
        self._owed = 0.0
        self._learned = False
        self._counts = {"env_steps": 0, "decisions": 0, "updates": 0, "episodes": 0}
        self._open_episodes: dict[str, tuple[int, float]] = {}
        self._recent: dict[str, deque[float]] = {}
        self._reseed_learners()  # RLlib gives all the same seed, hence equal noise on their different rows
        self.experience = config.build_experience()

    @property
    def replay(self) -> Replay:
        """The policy's own transitions."""
        return self.experience.replay

    @property
    def finished(self) -> bool:
        """Whether another request for experience could exceed `total_env_steps`."""
        return self._counts["env_steps"] + self._request_env_steps > self.pace.total_env_steps

    @property
    def offline_updates_left(self) -> int:
        """Updates to make before the first fragment of experience."""
        return max(0, self.pace.offline_updates - self._counts["updates"])

    @property
    def steps(self) -> int:
        """Env steps so far and, as many steps more, offline updates."""
        return self._counts["env_steps"] + min(self._counts["updates"], self.pace.offline_updates)

    @property
    def learned(self) -> bool:
        """Whether the last call of `train` made an update; RLlib's losses are NaN where it did not."""
        return self._learned

    @property
    def counts(self) -> Mapping[str, int]:
        """Environment steps, decisions of the policy, updates and finished episodes so far."""
        return self._counts

    @property
    def recent_episodes(self) -> Mapping[str, Sequence[float]]:
        """Success, sub-tasks, return and length of the newest finished episodes, EPISODE_WINDOW of them at most."""
        return self._recent

    @property
    def env_runner_nodes(self) -> int:
        """On how many nodes the env runners are."""
        return self._runners.nodes()

    @property
    def faults(self) -> Mapping[str, int]:
        """What was lost so far; see `EnvRunners.faults`."""
        return self._runners.faults

    def step(self) -> Any:
        """As in RLlib: one result, for which `training_step` is called until it has taken long enough."""
        self._learned = False
        return super().step()

    def training_step(self) -> None:
        """Take in what the env runners have, set them to work again, then learn until nothing is owed.

        While offline updates are left, make some of them instead.

        Raises:
            SkildError: environments fail or hang again and again.
        """
        if left := self.offline_updates_left:
            self._owed += min(OFFLINE_UPDATES_PER_STEP, left) * self.pace.batch_size
            self._learn()
            self._log_counts()
        else:
            self._sample_and_learn()

    def _sample_and_learn(self) -> None:
        pace = self.pace
        ahead = not pace.synchronous and self._runners.remote
        before = self.replay.added
        if ahead:
            fragments = self._runners.fetch()
        else:
            fragments = [] if self.finished else self._runners.answer_all(self._weights, self._affordable)
        for fragment in fragments:
            self._take_in(fragment)
        if ahead:
            self._runners.request(self._weights, self._affordable)
        if self.replay.added >= pace.warmup_decisions:
            self._owed += (self.replay.added - before) * pace.samples_per_decision
        self._learn()
        self._log_counts()
        # Not before every environment can have finished one: the first to finish are the fast, successful ones.
        envs = max(1, self.config.num_env_runners) * self.config.num_envs_per_env_runner
        if self._counts["episodes"] >= min(EPISODE_WINDOW, envs):
            for name, values in self._recent.items():  # RLlib's own windows are emptied by every report
                self.metrics.log_value(name, float(np.mean(values)), window=1)
        self.metrics.log_value("replay_size", len(self.replay), window=1)

    def _log_counts(self) -> None:
        for name, value in (self._counts | self._runners.faults).items():
            self.metrics.log_value(name, value, window=1)

    # --- sampling ---

    def _weights(self) -> dict[str, Any]:
        module = f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"
        state: dict[str, Any] = self.learner_group.get_state(components=[module], inference_only=True)
        return state[COMPONENT_LEARNER]

    @property
    def _affordable(self) -> int:
        """How many more requests fit into the budget of environment steps."""
        left = self.pace.total_env_steps - self._counts["env_steps"]
        return max(0, left // self._request_env_steps - self._runners.at_work)

    def _take_in(self, fragment: Fragment) -> None:
        self.metrics.aggregate([fragment.metrics], key=ENV_RUNNER_RESULTS)
        chunks = [episode for episode in fragment.episodes if len(episode)]
        for chunk in chunks:
            self._count(chunk)
        self.experience.add(chunks)
        self._runners.count_rebuilds(fragment.failures, self._counts["decisions"])

    def _count(self, chunk: SingleAgentEpisode) -> None:
        env_steps = sum(int(info["k"]) for info in chunk.get_infos()[1:])
        self._counts["env_steps"] += env_steps
        self._counts["decisions"] += len(chunk)
        self._log_episode(chunk, env_steps)

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
            drawn = self.experience.draw(updates, size)
            shares = {name: learner_shares(column, updates, learners) for name, column in drawn.items()}
            batch = SampleBatch({name: torch.from_numpy(column) for name, column in shares.items()})
            results = self.learner_group.update(
                batch=MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=updates * size),
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self._counts["decisions"]},
                minibatch_size=size // learners if updates > 1 else None,
                num_epochs=1,
            )
            self._counts["updates"] += updates
            self._learned = True
            self.metrics.aggregate(results, key=LEARNER_RESULTS)

    # --- faults and checkpoints ---

    def restore_env_runners(self, env_runner_group: Any) -> list[int]:
        """Take the lost runners that are back into service. RLlib's way waits at every step for those that are not."""
        if env_runner_group is not self.env_runner_group:
            restored: list[int] = super().restore_env_runners(env_runner_group)
            return restored
        returned = self._runners.returned()
        if returned:  # an empty list would mean all runners to RLlib
            self._begin_anew(returned)
        return returned

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        state = super().get_state(components, not_components=not_components, **kwargs)
        state["off_policy"] = {
            "owed": self._owed,
            "counts": dict(self._counts),
            "faults": dict(self._runners.faults),
            "recent": {name: list(values) for name, values in self._recent.items()},
            "config": self.config.record,
            "experience": self.experience.get_state(),
        }
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        self._accept_older_weights(learners="learner_group" in state)
        super().set_state(state)
        if own := state.get("off_policy"):
            self.experience.set_state(own["experience"])
            self._owed = own["owed"]
            self._counts = dict(own["counts"])
            self._runners.faults.update(own["faults"])
            self._recent = {name: deque(values, EPISODE_WINDOW) for name, values in own["recent"].items()}
            self._begin_anew_everywhere()
            self._runners.forget_requests()

    def save_to_path(self, *args: Any, **kwargs: Any) -> str:
        """As in RLlib. A synchronous run begins new episodes then, as one that is restored from there will."""
        path: str = super().save_to_path(*args, **kwargs)
        if self.pace.synchronous:
            self._begin_anew_everywhere()
        return path

    def _begin_anew_everywhere(self) -> None:
        """Forget all episodes in progress, and draw what is random outside of checkpoints from new seeds."""
        self.experience.forget_open_episodes()
        self._open_episodes = {}
        self._begin_anew(None)
        self._reseed_learners()

    def _reseed_learners(self) -> None:
        self.learner_group.foreach_learner(func=functools.partial(_reseed_learner, entropy=self._entropy))

    def _begin_anew(self, runners: list[int] | None) -> None:
        """Let these env runners (None: all) drop what they are at and begin episodes that nobody has seen.

        RLlib seeds a runner by its index alone, so that one which is restarted would play its first episodes again.
        """
        anew = functools.partial(_begin_anew, entropy=self._entropy)
        self.env_runner_group.foreach_env_runner(anew, remote_worker_ids=runners, local_env_runner=runners is None)

    @property
    def _entropy(self) -> tuple[int, ...]:
        """What new seeds follow from: never the same twice in a run."""
        return self.config.seed or 0, self.steps, self._runners.faults["lost_runners"]

    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        self._accept_older_weights()
        super().restore_from_path(path, *args, **kwargs)

    def _accept_older_weights(self, learners: bool = False) -> None:
        """Let a live algorithm go back to an older checkpoint: RLlib drops weights older than those it holds."""
        for group in (self.env_runner_group, self.eval_env_runner_group):
            if group:
                group.foreach_env_runner(forget_weights_version)
        if learners:
            self.learner_group.foreach_learner(func=forget_weights_version)


def _begin_anew(runner: BoundedEnvRunner, entropy: tuple[int, ...]) -> None:
    runner.begin_anew(entropy)


def _reseed_learner(learner: Any, entropy: tuple[int, ...]) -> None:
    torch.manual_seed(int(np.random.SeedSequence([*entropy, learner_index(learner)]).generate_state(1)[0]))
