"""Stage 4 as a run: train until the budget is spent, checkpoint, resume, publish the artifact."""

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from torch import Tensor

from skild_ray.algorithms.off_policy import OffPolicy, OffPolicyConfig
from skild_ray.algorithms.pretrained import Pretrained
from skild_ray.algorithms.sac import SACConfig
from skild_ray.algorithms.skild import SkiLDConfig
from skild_ray.artifacts import Artifact, publish, work_folder, writable
from skild_ray.config import Experiment
from skild_ray.errors import ConfigError, SkildError
from skild_ray.progress import TaskProgress
from skild_ray.tracking import Series, Tracking

PREFIX = "checkpoint_"
ROWS_FILE, REPLAY_FILE = "rows.json", "replay.npz"
EPISODE_METRICS = ("success", "subtasks_solved", "episode_return", "episode_env_steps")

Row = dict[str, float]


def stage_name(experiment: Experiment) -> str:
    """`sac` where the experiment has that section; else `imitation` without the environment's reward, or `demo_rl`."""
    if experiment.sac:
        return "sac"
    return "imitation" if experiment.imitation else "demo_rl"


def train_downstream(
    experiment: Experiment,
    fingerprint: str,
    data: Mapping[str, str] | None = None,
    tracking: Tracking | None = None,
) -> Artifact:
    """Train SkiLD on the artifacts in the run directory, or SAC without any, and publish the policy.

    Goes on from the newest checkpoint of the same fingerprint within `total_env_steps`, if there is one. SIGTERM and
    Ctrl-C write a checkpoint before they end the run; so does its end, from which a larger budget can go on.

    Args:
        experiment: what to train.
        fingerprint: see `Artifact.fingerprint`.
        data: fingerprint of each data set that is used directly, by name.
        tracking: what gets the metrics besides the files.

    Raises:
        ArtifactError: an input is missing or does not fit, or the run directory cannot be written.
        SkildError: the run was interrupted, or its losses are not finite any more.
    """
    stage = stage_name(experiment)
    if not experiment.sac:
        Pretrained.open(experiment.run_dir)
    work = work_folder(experiment, stage, fingerprint)
    with writable(work):
        work.mkdir(parents=True, exist_ok=True)
    config = algorithm_config(experiment)
    subtasks = try_environment(config)
    _say_what_is_missing(experiment)
    algo = config.build_algo()
    try:
        with (tracking or Tracking()).stage(stage, fingerprint, work) as series:
            rows = _train(algo, experiment, stage, work, subtasks, series)
        _save(algo, work, rows, keep=1)
        artifact = publish_policy(algo, experiment, rows, fingerprint, data)
        series.remove_files()
        return artifact
    finally:
        algo.stop()


def algorithm_config(experiment: Experiment) -> OffPolicyConfig:
    """That of the algorithm which the experiment trains in stage 4."""
    return (SACConfig if experiment.sac else SkiLDConfig).from_experiment(experiment)


def publish_policy(
    algo: OffPolicy, experiment: Experiment, rows: Sequence[Row], fingerprint: str, data: Mapping[str, str] | None
) -> Artifact:
    """Write what was trained, with its `rows` of metrics, as the artifact of stage 4; see `train_downstream`."""
    stage = stage_name(experiment)
    replay = work_folder(experiment, stage, fingerprint) / REPLAY_FILE
    with writable(replay):
        replay.parent.mkdir(parents=True, exist_ok=True)
        transitions: dict[str, Any] = algo.replay.recent()
        np.savez_compressed(replay, **transitions)
    return publish(
        experiment,
        stage,
        module_weights(algo),
        rows,
        fingerprint=fingerprint,
        data=data or {},
        inputs=() if experiment.sac else Pretrained.open(experiment.run_dir).artifacts,
        facts={
            "total_env_steps": experiment.total_env_steps,
            **algo.counts,
            "seconds": round(rows[-1]["seconds"], 1),
        },
        extra=[replay],
    )


def try_environment(config: OffPolicyConfig) -> list[str]:
    """One reset and one step: an environment that never works would be rebuilt by the env runners for ever.

    Returns the names of its sub-tasks, numbers where it draws them anew for every episode.
    """
    config.validate()
    env = config.make_vector_env(config.env_config)
    try:
        env.reset(seed=0)
        env.step(np.zeros(env.action_space.shape or (), np.float32))
        fixed = tuple(getattr(env.envs[0].unwrapped, "subtasks", ())) == env.subtasks
        return [f"{k}_{name.replace(' ', '_')}" if fixed else f"{k}" for k, name in enumerate(env.subtasks, 1)]
    except Exception as error:  # whatever a user's environment raises
        reason = " ".join(str(error).split())
        raise SkildError(f"environment {config.low_level_env!r} fails: {type(error).__name__}: {reason}") from error
    finally:
        env.close()


def _say_what_is_missing(experiment: Experiment) -> None:
    """Print which cores or GPUs the cluster lacks: actors wait for them, until nodes come or for ever."""
    resources, rollout, available = experiment.resources, experiment.rollout, ray.cluster_resources()
    needed = {
        "CPU": rollout.num_env_runners + resources.num_learners,
        "GPU": max(1, resources.num_learners) if resources.use_gpu else 0,
    }
    for kind, count in needed.items():
        if count > available.get(kind, 0):
            print(
                f"waiting for {kind}s: rollout.num_env_runners and resources ask for {count}, the cluster has "
                f"{available.get(kind, 0):.0f}",
                flush=True,
            )


def module_weights(algo: OffPolicy) -> dict[str, Tensor]:
    """All weights of the learners' RLModule, by name."""
    component = f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"
    state = algo.learner_group.get_state(components=[component])
    module = state[COMPONENT_LEARNER][COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]
    return {name: torch.as_tensor(np.asarray(value)) for name, value in module.items()}


def _train(
    algo: OffPolicy, experiment: Experiment, stage: str, work: Path, subtasks: Sequence[str], series: Series
) -> list[Row]:
    settings, budget = experiment.progress, experiment.total_env_steps
    rows = _resume(algo, work, budget)
    series.restart(rows)
    earlier = rows[-1]["seconds"] if rows else 0.0
    started = saved = time.monotonic()
    if not rows:
        require_budget(algo, experiment)
    with (
        _Interruption() as interruption,
        TaskProgress(stage.replace("_", " "), budget, "env steps", start=algo.counts["env_steps"]) as progress,
    ):
        while not algo.finished:
            row = metrics_row(algo.train(), algo, subtasks, earlier + time.monotonic() - started)
            rows.append(row)
            series.add(row)
            check_finite(row, experiment)
            progress.update(row["env_steps"], _note(row))
            due = time.monotonic() - saved >= settings.checkpoint_interval_s
            if due or interruption.requested:
                _save(algo, work, rows, settings.keep_checkpoints)
                saved = time.monotonic()
            if interruption.requested:
                raise SkildError(
                    f"{stage}: stopped at {algo.counts['env_steps']} env steps; the same command goes on from there"
                )
    return rows


def require_budget(algo: OffPolicy, experiment: Experiment) -> None:
    """Raise ConfigError if a new run would be over before it began."""
    if algo.finished:
        raise ConfigError(
            f"{_section(experiment)}.total_env_steps {experiment.total_env_steps} does not allow one fragment of "
            "experience; raise it, or lower rollout.skill_steps_per_fragment and rollout.num_envs_per_env_runner"
        )


def metrics_row(result: Mapping[str, Any], algo: OffPolicy, subtasks: Sequence[str], seconds: float) -> Row:
    """The metrics of one iteration, flat; those that do not exist yet are left out.

    Args:
        result: of `algo.train()`.
        algo: after it.
        subtasks: see `try_environment`.
        seconds: trained so far.
    """
    row: Row = {"env_steps": algo.counts["env_steps"], "seconds": seconds}
    row |= {name: value for name, value in algo.counts.items() if name != "env_steps"}
    row |= {name: float(result[name]) for name in EPISODE_METRICS if name in result}
    if "subtasks_solved" in row:
        row |= completion_rates(algo.recent_episodes["subtasks_solved"], subtasks)
    learner = result.get("learners", {}).get(DEFAULT_MODULE_ID, {})
    return row | {name: float(value) for name, value in learner.items() if isinstance(value, int | float)}


def completion_rates(solved: Sequence[float], subtasks: Sequence[str]) -> Row:
    """Share of the episodes that completed each sub-task; nothing for a single one, where it is success.

    Sub-tasks count in their order only: the k-th was completed where at least k were solved.
    """
    if len(subtasks) < 2:
        return {}
    return {f"solved_{name}": float(np.mean(np.array(solved) >= k)) for k, name in enumerate(subtasks, 1)}


def _note(row: Row) -> str:
    shown = {"success": "success", "subtasks_solved": "sub-tasks", "episode_return": "return"}
    return ", ".join(f"{label} {row[name]:.2f}" for name, label in shown.items() if name in row)


def _section(experiment: Experiment) -> str:
    """The part of the experiment that describes the algorithm."""
    return "sac" if experiment.sac else "algorithm"


def check_finite(row: Row, experiment: Experiment) -> None:
    """Raise SkildError where the losses have diverged."""
    remedy = (
        "lower sac.learning_rate"
        if experiment.sac
        else "lower algorithm.critic_lr or algorithm.policy_lr, or bound the skills (algorithm.latent_squash)"
    )
    for name in ("critic_loss", "policy_loss"):
        if not math.isfinite(row.get(name, 0.0)):
            raise SkildError(f"{name} is not finite at {row['env_steps']:.0f} env steps; {remedy}")


def _checkpoints(work: Path) -> list[Path]:
    return sorted(work.glob(f"{PREFIX}*"))


def _save(algo: OffPolicy, work: Path, rows: list[Row], keep: int) -> None:
    """Write a checkpoint under a temporary name, rename it, and remove the oldest of those before it."""
    final = work / f"{PREFIX}{algo.counts['env_steps']:012d}"
    with writable(work):
        if not final.exists():
            draft = work / "draft"
            shutil.rmtree(draft, ignore_errors=True)
            algo.save_to_path(str(draft.resolve()))
            (draft / ROWS_FILE).write_text(json.dumps(rows))
            draft.rename(final)
        for old in [path for path in _checkpoints(work) if path.name <= final.name][:-keep]:
            shutil.rmtree(old, ignore_errors=True)


def _resume(algo: OffPolicy, work: Path, budget: int) -> list[Row]:
    """Restore the newest checkpoint within the budget, if there is one, and return the rows of metrics up to it."""
    found = [path for path in _checkpoints(work) if int(path.name.removeprefix(PREFIX)) <= budget]
    if not found:
        return []
    algo.restore_from_path(str(found[-1].resolve()))
    rows: list[Row] = json.loads((found[-1] / ROWS_FILE).read_text())
    print(f"resumed at {algo.counts['env_steps']} env steps from {found[-1]}", flush=True)
    return rows


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
