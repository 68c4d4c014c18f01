"""SkiLD's stage 4 as an RLlib algorithm: configuration and the loop of sampling and learning."""

import functools
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm import Algorithm as RLlibAlgorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune.registry import register_env

from skild_ray.algorithms.env_runners import EnvRunners, Fragment, SkillEnvRunner, env_runner_placement
from skild_ray.algorithms.pretrained import Pretrained, References, load_decoder, load_demonstration_states
from skild_ray.algorithms.replay import SkillReplay
from skild_ray.algorithms.skild.skild_learner import SkiLDTorchLearner
from skild_ray.algorithms.skild.skild_rl_module import SkiLDTorchRLModule
from skild_ray.algorithms.transitions import Rows, ShiftedTransitions, episode_rows
from skild_ray.config import Algorithm, Experiment, Rollout
from skild_ray.envs.registry import make_env
from skild_ray.envs.skill_env import SkillVectorEnv

SKILL_ENV = "skild_ray/skills"
UPDATES_PER_CALL = 8
EPISODE_WINDOW = 50


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


class SkiLDConfig(AlgorithmConfig):
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

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or SkiLD)
        for name, value in Algorithm().model_dump().items():
            setattr(self, name, value)
        self.run_dir: str | None = None
        self.low_level_env: str | None = None
        self.low_level_kwargs: dict[str, Any] = {}
        self.learner_threads = 1
        # Skills are unbounded latents, not actions of a box.
        self.normalize_actions = False
        self.clip_actions = False
        self.gym_env_vectorize_mode = "vector_entry_point"
        self.rollout_fragment_length = 4
        self.num_env_runners = 1
        self.num_envs_per_env_runner = 16
        self.min_sample_timesteps_per_iteration = 0
        self.min_time_s_per_iteration = 5.0
        # See `SkillEnvRunner` and `EnvRunners` for what becomes of faults.
        self.env_runner_cls = SkillEnvRunner
        self.restart_failed_env_runners = True
        self.sample_timeout_s = Rollout().answer_timeout_s
        self.delay_between_env_runner_restarts_s = 2.0

    @classmethod
    def from_experiment(cls, experiment: Experiment) -> "SkiLDConfig":
        """The algorithm that an experiment file describes, on the artifacts in its run directory."""
        rollout, resources = experiment.rollout, experiment.resources
        seed = int(np.random.SeedSequence([experiment.seed, 4]).generate_state(1)[0]) >> 2
        config = (
            cls()
            .environment(experiment.environment.id, env_config=dict(experiment.environment.kwargs))
            .pretrained(run_dir=str(experiment.run_dir.resolve()))
            .env_runners(
                num_env_runners=rollout.num_env_runners,
                num_envs_per_env_runner=rollout.num_envs_per_env_runner,
                rollout_fragment_length=max(1, rollout.skill_steps_per_fragment // rollout.num_envs_per_env_runner),
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
            .training(**experiment.algorithm.model_dump())
        )
        config.learner_threads = resources.learner_threads
        if experiment.algorithm.synchronous:
            config.min_time_s_per_iteration = 0.0  # one fragment of each runner: no clock may decide anything
        return config

    def environment(self, env: Any = NotProvided, *, env_config: Any = NotProvided, **kwargs: Any) -> "SkiLDConfig":
        """As in RLlib, for the low-level environment: a Gymnasium id or 'module:attribute', and its arguments."""
        if env is not NotProvided:
            self.low_level_env = env
        if env_config is not NotProvided:
            self.low_level_kwargs = dict(env_config)
        return super().environment(SKILL_ENV, **kwargs)

    def pretrained(self, *, run_dir: str) -> "SkiLDConfig":
        """Name the folder that holds the artifacts of stages 1 to 3."""
        self.run_dir = str(Path(run_dir).resolve())
        return self

    def training(self, **kwargs: Any) -> "SkiLDConfig":
        """Set fields of `skild_ray.config.Algorithm`; RLlib takes the rest, and refuses what is unknown."""
        for name in set(kwargs) & set(Algorithm.model_fields):
            setattr(self, name, kwargs.pop(name))
        return super().training(**kwargs)

    @property
    def settings(self) -> Algorithm:
        """The fields of `Algorithm`, validated."""
        return Algorithm(**{name: getattr(self, name) for name in Algorithm.model_fields})

    def validate(self) -> None:
        super().validate()
        if self.run_dir is None or self.low_level_env is None:
            raise ValueError("SkiLDConfig needs .environment(ID) and .pretrained(run_dir=DIR)")
        self.env_config = {
            "id": self.low_level_env,
            "kwargs": self.low_level_kwargs,
            "run_dir": self.run_dir,
            "reference_quirks": self.settings.reference_quirks,
        }
        if self.batch_size % max(1, self.num_learners):
            raise ValueError(f"batch_size {self.batch_size} does not divide into {self.num_learners} learners")

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=SkiLDTorchRLModule)

    def get_default_learner_class(self) -> type:
        return SkiLDTorchLearner

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return {"run_dir": self.run_dir, "algorithm": self.settings.model_dump()}


class SkiLD(RLlibAlgorithm):
    """Off-policy learning over skills, sampling and learning side by side.

    Each fragment of skill steps that arrives owes `samples_per_skill_step` replayed transitions a skill step; they are
    paid in updates of `batch_size` before the next fragments are taken in, so the ratio is exact. Unless `synchronous`,
    env runners already collect their next fragment meanwhile, with the weights of the moment it was requested. A runner
    has one request open at most, which bounds how stale a policy can be, and no more requests are made than
    `total_env_steps` allow.

    A checkpoint holds everything but the environments, whose state nobody can save. What is restored therefore begins
    new episodes, with seeds that follow from the run's seed and its steps so far. A synchronous run does the same when
    it writes a checkpoint, so with one runner, or none, it goes on bit for bit like one that was restored from there.
    """

    config: SkiLDConfig

    @classmethod
    def get_default_config(cls) -> SkiLDConfig:
        return SkiLDConfig()

    def setup(self, config: SkiLDConfig) -> None:
        self._pretrained = pretrained = Pretrained.open(config.run_dir or "")
        skill = pretrained.experiment.skill
        self.settings = settings = config.settings
        with env_runner_placement(config.placement_strategy):
            super().setup(config)
        torch.set_num_threads(config.learner_threads if config.num_learners == 0 else 1)
        self._references = References(pretrained)
        widths = dict.fromkeys(References.NAMES, skill.latent_dim)
        if settings.kl_in_target:
            widths |= {f"next_{name}": width for name, width in widths.items()}
        seed = config.seed or 0
        self.replay = SkillReplay(
            settings.replay_capacity,
            pretrained.skill_prior.facts["observation_dim"],
            skill.latent_dim,
            n_step=settings.n_step,
            discount=settings.discount,
            horizon=skill.horizon,
            seed=seed,
            columns=widths,
        )
        self._shift = ShiftedTransitions() if "shifted_transitions" in settings.reference_quirks else None
        self._demonstrations = load_demonstration_states(pretrained.demo_discriminator)
        self._rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
        # A runner steps all its environments until it has a fragment; resets in between make it overshoot.
        envs = self.config.num_envs_per_env_runner
        self._request_env_steps = (self.config.rollout_fragment_length * envs + envs - 1) * skill.horizon
        self._runners = EnvRunners(self.env_runner_group, config.sample_timeout_s)
        self._owed = 0.0
        self._counts = {"env_steps": 0, "skill_steps": 0, "updates": 0, "episodes": 0}
        self._open_episodes: dict[str, tuple[int, float]] = {}
        self._recent: dict[str, deque[float]] = {}

    @property
    def finished(self) -> bool:
        """Whether another request for experience could exceed `total_env_steps`."""
        return self._counts["env_steps"] + self._request_env_steps > self.settings.total_env_steps

    @property
    def counts(self) -> Mapping[str, int]:
        """Environment steps, skill steps, updates and finished episodes so far."""
        return self._counts

    @property
    def env_runner_nodes(self) -> int:
        """On how many nodes the env runners are."""
        return self._runners.nodes()

    @property
    def faults(self) -> Mapping[str, int]:
        """What was lost so far; see `EnvRunners.faults`."""
        return self._runners.faults

    def training_step(self) -> None:
        """Take in what the env runners have, set them to work again, then learn until nothing is owed.

        Raises:
            SkildError: environments fail or hang again and again.
        """
        ahead = not self.settings.synchronous and self._runners.remote
        before = self.replay.added
        if ahead:
            fragments = self._runners.fetch()
        else:
            fragments = [] if self.finished else self._runners.answer_all(self._weights, self._affordable)
        for fragment in fragments:
            self._take_in(fragment)
        if ahead:
            self._runners.request(self._weights, self._affordable)
        if self.replay.added >= self.settings.warmup_skill_steps:
            self._owed += (self.replay.added - before) * self.settings.samples_per_skill_step
        self._learn()
        for name, value in (self._counts | self._runners.faults).items():
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

    @property
    def _affordable(self) -> int:
        """How many more requests fit into the budget of environment steps."""
        left = self.settings.total_env_steps - self._counts["env_steps"]
        return max(0, left // self._request_env_steps - self._runners.at_work)

    def _take_in(self, fragment: Fragment) -> None:
        self.metrics.aggregate([fragment.metrics], key=ENV_RUNNER_RESULTS)
        kept = [(episode, rows) for episode in fragment.episodes if (rows := self._rows(episode))]
        if kept:
            columns = self._reference_columns([rows for _, rows in kept])
            for (episode, rows), more in zip(kept, columns, strict=True):
                self.replay.add(episode.id_, rows | more, episode.is_done)
        self._runners.count_rebuilds(fragment.failures, self._counts["skill_steps"])

    def _rows(self, episode: SingleAgentEpisode) -> Rows:
        """Count what happened; the rows to store, if there are any yet."""
        if len(episode) == 0:
            return {}
        rows = episode_rows(episode)
        env_steps = int(rows["k"].sum())
        self._counts["env_steps"] += env_steps
        self._counts["skill_steps"] += len(episode)
        self._log_episode(episode, env_steps)
        return self._shift(episode) or {} if self._shift else rows

    def _reference_columns(self, chunks: Sequence[Rows]) -> list[Rows]:
        """Prior and posterior in the states of each chunk, asked once for all: a call costs more than its rows."""
        columns = self._references(np.concatenate([rows["obs"] for rows in chunks]))
        if self.settings.kl_in_target:
            following = self._references(np.concatenate([rows["next_obs"] for rows in chunks]))
            columns |= {f"next_{name}": value for name, value in following.items()}
        ends = np.cumsum([len(rows["obs"]) for rows in chunks])[:-1]
        parts = [np.split(value, ends) for value in columns.values()]
        return [dict(zip(columns, values, strict=True)) for values in zip(*parts, strict=True)]

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
        size, learners = self.settings.batch_size, max(1, self.config.num_learners)
        while self._owed >= size:
            updates = min(int(self._owed // size), UPDATES_PER_CALL)
            self._owed -= updates * size
            drawn = self.replay.sample(updates * size)
            if self.settings.discriminator_rate > 0:
                drawn["demonstration_states"] = self._draw_demonstrations(updates * size)
            batch = SampleBatch({name: torch.from_numpy(column) for name, column in drawn.items()})
            results = self.learner_group.update(
                batch=MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=updates * size),
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self._counts["skill_steps"]},
                minibatch_size=size // learners if updates > 1 else None,
                num_epochs=1,
            )
            self._counts["updates"] += updates
            self.metrics.aggregate(results, key=LEARNER_RESULTS)

    def _draw_demonstrations(self, size: int) -> NDArray:
        return self._demonstrations[self._rng.integers(len(self._demonstrations), size=size)]

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
        state["skild"] = {
            "replay": self.replay.get_state(),
            "owed": self._owed,
            "counts": dict(self._counts),
            "faults": dict(self._runners.faults),
            "recent": {name: list(values) for name, values in self._recent.items()},
            "rng": self._rng.bit_generator.state,
            "pretrained": self._pretrained.hashes,
            "environment": {"id": self.config.low_level_env, "kwargs": self.config.low_level_kwargs},
        }
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        self._accept_older_weights(learners="learner_group" in state)
        super().set_state(state)
        if own := state.get("skild"):
            self._pretrained.require(own["pretrained"])
            self.replay.set_state(own["replay"])
            self._owed = own["owed"]
            self._counts = dict(own["counts"])
            self._runners.faults.update(own["faults"])
            self._recent = {name: deque(values, EPISODE_WINDOW) for name, values in own["recent"].items()}
            self._rng.bit_generator.state = own["rng"]
            self._begin_anew_everywhere()
            self._runners.forget_requests()

    def save_to_path(self, *args: Any, **kwargs: Any) -> str:
        """As in RLlib. A synchronous run begins new episodes then, as one that is restored from there will."""
        path: str = super().save_to_path(*args, **kwargs)
        if self.settings.synchronous:
            self._begin_anew_everywhere()
        return path

    def _begin_anew_everywhere(self) -> None:
        """Forget all episodes in progress, and draw what is random outside of checkpoints from new seeds."""
        self.replay.forget_open_episodes()
        self._open_episodes = {}
        if self._shift:
            self._shift = ShiftedTransitions()
        self._begin_anew(None)
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
        return self.config.seed or 0, self._counts["env_steps"], self._runners.faults["lost_runners"]

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


def _begin_anew(runner: SkillEnvRunner, entropy: tuple[int, ...]) -> None:
    runner.begin_anew(entropy)


def _reseed_learner(learner: Any, entropy: tuple[int, ...]) -> None:
    torch.manual_seed(int(np.random.SeedSequence([*entropy, learner._learner_index]).generate_state(1)[0]))


def _forget_weights_version(holder: Any) -> None:
    holder._weights_seq_no = 0
