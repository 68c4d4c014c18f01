"""Stage 4 as a run: train until the budget is spent, checkpoint, resume, publish the artifact."""

import math
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from torch import Tensor

from skild_ray.algorithms.checkpoints import Row, restore_newest, save_checkpoint
from skild_ray.algorithms.pretrained import Pretrained
from skild_ray.algorithms.skild import SkiLD, SkiLDConfig
from skild_ray.algorithms.skild.skild import make_skill_env
from skild_ray.artifacts import Artifact, publish, work_folder, writable
from skild_ray.config import Experiment
from skild_ray.errors import ConfigError, SkildError
from skild_ray.progress import TaskProgress

REPLAY_FILE = "replay.npz"
EPISODE_METRICS = ("success", "subtasks_solved", "episode_return", "episode_env_steps")


def stage_name(experiment: Experiment) -> str:
    """`imitation` where the environment's reward is not used, `demo_rl` otherwise."""
    return "imitation" if experiment.imitation else "demo_rl"


def train_downstream(experiment: Experiment, fingerprint: str) -> Artifact:
    """Train SkiLD on the artifacts in the run directory and publish the policy.

    Goes on from the newest checkpoint of the same fingerprint within `total_env_steps`, if there is one. SIGTERM and
    Ctrl-C write a checkpoint before they end the run; so does its end, from which a larger budget can go on.

    With `algorithm.synchronous` a row of metrics is one fragment of each runner, and checkpoints, at which the
    environments begin anew (see `SkiLD`), come by env steps instead of by the clock, also when the run is interrupted.
    With one runner, or none, it then does not matter whether and when a run was stopped: its metrics are the same.

    Raises:
        ArtifactError: an input is missing or does not fit, or the run directory cannot be written.
        SkildError: the run was interrupted, or its losses are not finite any more.
    """
    stage = stage_name(experiment)
    pretrained = Pretrained.open(experiment.run_dir)
    work = work_folder(experiment, stage, fingerprint)
    with writable(work):
        work.mkdir(parents=True, exist_ok=True)
    config = SkiLDConfig.from_experiment(experiment)
    _try_environment(config)
    say_what_is_missing(experiment)
    algo = config.build_algo()
    runners = experiment.rollout.num_env_runners
    print(f"{stage}: {runners or 'no separate'} env runners, on {algo.env_runner_nodes} nodes", flush=True)
    try:
        rows = _train(algo, experiment, stage, work)
        save_checkpoint(algo, work, rows, keep=1)
        replay = work / REPLAY_FILE
        with writable(replay):
            np.savez_compressed(replay, **algo.replay.recent())
        artifact = publish(
            experiment,
            stage,
            module_weights(algo),
            rows,
            fingerprint=fingerprint,
            data={},
            inputs=pretrained.artifacts,
            facts={
                "total_env_steps": experiment.algorithm.total_env_steps,
                **algo.counts,
                **algo.faults,
                "seconds": round(rows[-1]["seconds"], 1),
            },
            extra=[replay],
        )
    finally:
        algo.stop()
    return artifact


def _try_environment(config: SkiLDConfig) -> None:
    """One reset and one skill: an environment that never works is told before anything is started."""
    config.validate()
    env = make_skill_env(config.env_config)
    try:
        env.reset(seed=0)
        env.step(np.zeros((env.num_envs, env.latent_dim), np.float32))
    except Exception as error:  # whatever a user's environment raises
        reason = " ".join(str(error).split())
        raise SkildError(f"environment {config.low_level_env!r} fails: {type(error).__name__}: {reason}") from error
    finally:
        env.close()


def say_what_is_missing(experiment: Experiment) -> None:
    """Print which of the resources that stage 4 asks for the cluster lacks: it waits for them, maybe for ever."""
    resources, rollout, available = experiment.resources, experiment.rollout, ray.cluster_resources()
    needed = {
        "CPU": rollout.num_env_runners * rollout.cpus_per_env_runner
        + resources.num_learners * resources.learner_threads,
        "GPU": max(1, resources.num_learners) if resources.use_gpu else 0,
    }
    needed |= {name: rollout.num_env_runners * amount for name, amount in rollout.env_runner_resources.items()}
    for kind, count in needed.items():
        if count > available.get(kind, 0):
            print(
                f"waiting for {kind}s: rollout and resources ask for {count:g}, the cluster has "
                f"{available.get(kind, 0):g}",
                flush=True,
            )


def module_weights(algo: SkiLD) -> dict[str, Tensor]:
    """All weights of the learners' RLModule, by name."""
    component = f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"
    state = algo.learner_group.get_state(components=[component])
    module = state[COMPONENT_LEARNER][COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]
    return {name: torch.as_tensor(np.asarray(value)) for name, value in module.items()}


def _train(algo: SkiLD, experiment: Experiment, stage: str, work: Path) -> list[Row]:
    settings, budget = experiment.progress, experiment.algorithm.total_env_steps
    rows = restore_newest(algo, work, budget)
    earlier = rows[-1]["seconds"] if rows else 0.0
    started = saved = time.monotonic()
    synchronous = experiment.algorithm.synchronous
    if algo.finished and not rows:
        raise ConfigError(
            f"algorithm.total_env_steps {budget} does not allow one fragment of experience; raise it, or lower "
            "rollout.skill_steps_per_fragment and rollout.num_envs_per_env_runner"
        )
    with (
        _Interruption() as interruption,
        TaskProgress(stage.replace("_", " "), budget, "env steps", start=algo.counts["env_steps"]) as progress,
    ):
        while not algo.finished:
            before = algo.counts["env_steps"]
            rows.append(_row(algo.train(), algo, earlier + time.monotonic() - started))
            _check_finite(rows[-1])
            progress.update(rows[-1]["env_steps"], _note(rows[-1]))
            if synchronous:
                interval = settings.checkpoint_env_steps
                due = algo.counts["env_steps"] // interval > before // interval
            else:
                due = time.monotonic() - saved >= settings.checkpoint_interval_s or interruption.requested
            if due:
                save_checkpoint(algo, work, rows, settings.keep_checkpoints)
                saved = time.monotonic()
            if interruption.requested:
                where = "the last checkpoint" if synchronous else "there"
                raise SkildError(
                    f"{stage}: stopped at {algo.counts['env_steps']} env steps; the same command goes on from {where}"
                )
    return rows


def _row(result: Mapping[str, Any], algo: SkiLD, seconds: float) -> Row:
    """The metrics of one iteration, flat; those that do not exist yet are left out."""
    row: Row = {"env_steps": algo.counts["env_steps"], "seconds": seconds}
    row |= {name: value for name, value in algo.counts.items() if name != "env_steps"}
    row |= algo.faults
    row |= {name: float(result[name]) for name in EPISODE_METRICS if name in result}
    learner = result.get("learners", {}).get(DEFAULT_MODULE_ID, {})
    return row | {name: float(value) for name, value in learner.items() if isinstance(value, int | float)}


def _note(row: Row) -> str:
    shown = {"success": "success", "subtasks_solved": "sub-tasks", "episode_return": "return"}
    return ", ".join(f"{label} {row[name]:.2f}" for name, label in shown.items() if name in row)


def _check_finite(row: Row) -> None:
    for name in ("critic_loss", "policy_loss", "alpha_loss", "discriminator_loss"):
        if not math.isfinite(row.get(name, 0.0)):
            raise SkildError(
                f"{name} is not finite at {row['env_steps']:.0f} env steps; lower algorithm.critic_lr or "
                "algorithm.policy_lr, or bound the skills (algorithm.latent_squash); checkpoints before it stay usable"
            )


class _Interruption:
    """Notes SIGTERM and Ctrl-C, so that the loop can end between two iterations; a second one ends it at once."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "_Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print("stopping after this iteration", flush=True)
