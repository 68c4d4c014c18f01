"""Stage 4 as a run: train until the budget is spent, checkpoint, resume, publish the artifact."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.tune import PlacementGroupFactory
from torch import Tensor

from skild_ray.algorithms.checkpoints import restore_newest, save_checkpoint
from skild_ray.algorithms.earlier_runs import REPLAY_FILE
from skild_ray.algorithms.off_policy import OffPolicy
from skild_ray.algorithms.off_policy_config import OffPolicyConfig
from skild_ray.algorithms.registry import last_stage, spec_of
from skild_ray.config import Experiment
from skild_ray.envs.conventions import subtasks_of
from skild_ray.envs.registry import make_env
from skild_ray.envs.try_out import try_out
from skild_ray.errors import ConfigError, SkildError, described
from skild_ray.interruption import Interruption, Stopped
from skild_ray.progress import TaskProgress
from skild_ray.resources import Waiting, downstream_requests, with_gpu_learner
from skild_ray.runs.artifacts import Artifact, open_inputs, publish, writable
from skild_ray.runs.folder import run_folder, work_folder
from skild_ray.stages import in_words
from skild_ray.tracking import MetricsRow, Series, Tracking

logger = logging.getLogger(__name__)

EPISODE_METRICS = ("success", "subtasks_solved", "episode_return", "episode_env_steps")


def train_downstream(
    experiment: Experiment,
    fingerprint: str,
    data: Mapping[str, str] | None = None,
    tracking: Tracking | None = None,
) -> Artifact:
    """Train the experiment's algorithm, on the artifacts in the run directory that it needs, and publish the policy.

    An algorithm whose `total_env_steps` are 0 only publishes the policy that it starts with.

    Resumes from the newest checkpoint of the same fingerprint within `total_env_steps`, if there is one. SIGTERM and
    Ctrl-C write a checkpoint before they end the run; so does its end, from which a larger budget resumes.

    With `synchronous` a row of metrics is one fragment of each runner, and checkpoints, at which the environments begin
    anew (see `OffPolicy`), come by env steps instead of by the clock, also when the run is interrupted. With one
    runner, or none, it then does not matter whether and when a run was stopped: its metrics are the same.

    Args:
        experiment: what to train.
        fingerprint: see `Artifact.fingerprint`.
        data: fingerprint of each data set that is used directly, by name.
        tracking: what gets the metrics besides the files.

    Raises:
        ArtifactError: an input is missing or does not fit, or the run directory cannot be written.
        Stopped: SIGTERM or Ctrl-C ended the run.
        SkildError: its losses are not finite any more.
    """
    stage = last_stage(experiment).name
    input_artifacts(experiment)  # they are there
    work = work_folder(experiment, stage, fingerprint)
    with writable(work):
        work.mkdir(parents=True, exist_ok=True)
    placed = with_gpu_learner(experiment)
    if placed is not experiment:
        logger.info(f"{stage}: there is no GPU here, so its learner goes to a node that has one")
    config = algorithm_config(placed)
    subtasks = try_environment(config)
    if not experiment.algorithm.total_env_steps:
        return _publish_untrained(config, experiment, fingerprint)
    with Waiting(stage, downstream_requests(experiment)):
        algo = config.build_algo()
    try:
        runners = experiment.rollout.num_env_runners or "no separate"
        logger.info(f"{stage}: {runners} env runners, on {algo.env_runner_nodes} nodes")
        with (tracking or Tracking()).stage(stage, fingerprint, work) as series:
            rows = _train(algo, experiment, stage, work, subtasks, series)
        save_checkpoint(algo, work, rows, keep=1)
        artifact = publish_policy(algo, experiment, rows, fingerprint, data)
        series.remove_files()
        return artifact
    finally:
        algo.stop()


def algorithm_config(experiment: Experiment) -> OffPolicyConfig:
    """That of the algorithm which the experiment trains in stage 4."""
    return spec_of(experiment.algorithm.type).load_config().from_experiment(experiment)


def placement(experiment: Experiment) -> PlacementGroupFactory:
    """What the learner and all env runners take, in one group: the first bundle is the process that trains."""
    config = algorithm_config(experiment)
    algorithm: type[OffPolicy] = config.algo_class
    return algorithm.default_resource_request(config.to_dict())


def input_artifacts(experiment: Experiment, run_dir: Path | None = None) -> Sequence[Artifact]:
    """The artifacts of the stages that the experiment's algorithm starts from, checked to belong together.

    Args:
        experiment: names the algorithm.
        run_dir: where they are; default: the experiment's run.

    Raises:
        ArtifactError: one is missing or damaged, or was made from another.
    """
    return open_inputs(run_dir or run_folder(experiment), last_stage(experiment).inputs)


def publish_policy(
    algo: OffPolicy,
    experiment: Experiment,
    rows: Sequence[MetricsRow],
    fingerprint: str,
    data: Mapping[str, str] | None,
) -> Artifact:
    """Write what was trained, with its `rows` of metrics, as the artifact of stage 4; see `train_downstream`."""
    stage = last_stage(experiment).name
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
        inputs=input_artifacts(experiment),
        facts={
            "total_env_steps": experiment.algorithm.total_env_steps,
            **algo.counts,
            **algo.faults,
            "seconds": round(rows[-1]["seconds"], 1),
        },
        extra=[replay],
        version=algo.config.version,
    )


def _publish_untrained(config: OffPolicyConfig, experiment: Experiment, fingerprint: str) -> Artifact:
    """Write the policy that the algorithm starts with, where it learns nothing in the environment."""
    return publish(
        experiment,
        last_stage(experiment).name,
        config.build_module().state_dict(),
        rows=[],
        fingerprint=fingerprint,
        data={},
        inputs=input_artifacts(experiment),
        facts={"total_env_steps": 0, "env_steps": 0},
        version=config.version,
    )


def try_environment(config: OffPolicyConfig) -> list[str]:
    """Try the environment out, alone and with a decision: what cannot be learned from is found before training starts.

    Returns the names of its sub-tasks, numbers where it draws them anew for every episode.
    """
    config.validate()
    environment = config.low_level
    env = config.make_vector_env([lambda: make_env(environment.id, environment.arguments)])
    try:
        try_out(env.envs[0], config.low_level_env or "")
        env.reset(seed=0)
        env.step(np.zeros(env.action_space.shape or (), np.float32))
        fixed = subtasks_of(env.envs[0]) == env.subtasks
        return [f"{k}_{name.replace(' ', '_')}" if fixed else f"{k}" for k, name in enumerate(env.subtasks, 1)]
    except SkildError:
        raise
    except Exception as error:  # whatever a user's environment raises
        raise SkildError(f"environment {config.low_level_env!r} fails: {described(error)}") from error
    finally:
        env.close()


def module_weights(algo: OffPolicy) -> dict[str, Tensor]:
    """All weights of the learners' RLModule, by name."""
    component = f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"
    state = algo.learner_group.get_state(components=[component])
    module = state[COMPONENT_LEARNER][COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]
    return {name: torch.as_tensor(np.asarray(value)) for name, value in module.items()}


def _train(
    algo: OffPolicy, experiment: Experiment, stage: str, work: Path, subtasks: Sequence[str], series: Series
) -> list[MetricsRow]:
    budget = experiment.algorithm.total_env_steps
    rows = restore_newest(algo, work, budget)
    series.restart(rows)
    earlier = rows[-1]["seconds"] if rows else 0.0
    started = saved = time.monotonic()
    if not rows:
        require_budget(algo, experiment)
    with Interruption() as interruption:

        def advance(unit: str, progress: TaskProgress) -> None:
            nonlocal saved
            before = algo.steps
            row = metrics_row(algo.train(), algo, subtasks, earlier + time.monotonic() - started)
            rows.append(row)
            series.add(row)
            check_finite(row, experiment)
            progress.update(min(row[unit], progress.total), progress_note(row))
            if checkpoint_is_due(experiment, before, algo, saved, bool(interruption.number)):
                save_checkpoint(algo, work, rows, experiment.progress.keep_checkpoints)
                saved = time.monotonic()
            if interruption.number:
                where = "the last checkpoint" if experiment.algorithm.synchronous else "there"
                raise Stopped(
                    f"{stage}: stopped at {algo.counts[unit]} {in_words(unit)}; the same command resumes from {where}",
                    interruption.number,
                )

        if algo.offline_updates_left:
            offline, done = algo.pace.offline_updates, algo.counts["updates"]
            with TaskProgress(f"{in_words(stage)}, offline", offline, "updates", start=done) as progress:
                while algo.offline_updates_left:
                    advance("updates", progress)
        with TaskProgress(in_words(stage), budget, "env steps", start=algo.counts["env_steps"]) as progress:
            while not algo.finished:
                advance("env_steps", progress)
    return rows


def require_budget(algo: OffPolicy, experiment: Experiment) -> None:
    """Raise ConfigError if a new run would be over before it began."""
    if algo.finished:
        raise ConfigError(
            f"algorithm.total_env_steps {experiment.algorithm.total_env_steps} does not allow one "
            "fragment of experience; raise it, or lower rollout.decisions_per_fragment and "
            "rollout.num_envs_per_env_runner"
        )


def checkpoint_is_due(
    experiment: Experiment, before: int, algo: OffPolicy, saved: float, leaving: bool = False
) -> bool:
    """Whether to write a checkpoint after an iteration that began at `before` steps, see `OffPolicy.steps`.

    With `synchronous` these alone decide; otherwise the time since `saved`, or that the process is `leaving`.
    """
    settings = experiment.progress
    if experiment.algorithm.synchronous:
        interval = settings.checkpoint_env_steps
        return algo.steps // interval > before // interval
    return leaving or time.monotonic() - saved >= settings.checkpoint_interval_s


def metrics_row(result: Mapping[str, Any], algo: OffPolicy, subtasks: Sequence[str], seconds: float) -> MetricsRow:
    """The metrics of one iteration, flat; those that do not exist yet are left out.

    Args:
        result: of `algo.train()`.
        algo: after it.
        subtasks: see `try_environment`.
        seconds: trained so far.
    """
    row: MetricsRow = {"env_steps": algo.counts["env_steps"], "seconds": seconds}
    row |= {name: value for name, value in algo.counts.items() if name != "env_steps"}
    row |= algo.faults
    row |= {name: float(result[name]) for name in EPISODE_METRICS if name in result}
    if "subtasks_solved" in row:
        row |= completion_rates(algo.recent_episodes["subtasks_solved"], subtasks)
    learner = result.get("learners", {}).get(DEFAULT_MODULE_ID, {}) if algo.learned else {}
    # RLlib's own numbers of parameters and steps are not metrics, and mostly unknown.
    return row | {
        name: float(value)
        for name, value in learner.items()
        if isinstance(value, int | float) and not name.startswith("num_")
    }


def completion_rates(solved: Sequence[float], subtasks: Sequence[str]) -> MetricsRow:
    """Share of the episodes that completed each sub-task; nothing for a single one, where it is success.

    Sub-tasks count in their order only: the k-th was completed where at least k were solved.
    """
    if len(subtasks) < 2:
        return {}
    return {f"solved_{name}": float(np.mean(np.array(solved) >= k)) for k, name in enumerate(subtasks, 1)}


def progress_note(row: MetricsRow) -> str:
    """What of the metrics is shown with the progress."""
    shown = {"success": "success", "subtasks_solved": "sub-tasks", "episode_return": "return"}
    if not any(name.startswith("solved_") for name in row):
        del shown["subtasks_solved"]  # a single one is success, and where there are none it would be 0
    return ", ".join(f"{label} {row[name]:.2f}" for name, label in shown.items() if name in row)


def check_finite(row: MetricsRow, experiment: Experiment) -> None:
    """Raise SkildError if a metric named `..._loss` is not finite: the critic's first, which spoils the others."""
    remedy = spec_of(experiment.algorithm.type).remedy
    for name in sorted(row):
        if name.endswith("_loss") and not math.isfinite(row[name]):
            raise SkildError(
                f"{name} is not finite at {row['env_steps']:.0f} env steps; {remedy}; checkpoints before it stay usable"
            )
