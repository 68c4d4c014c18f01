"""The offline stages: one Ray Train job each, from data and inputs to the published artifact."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import safetensors.numpy
import torch
from numpy.typing import NDArray
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from skild_ray.config import Experiment
from skild_ray.data.trajectories import Trajectories
from skild_ray.errors import ConfigError
from skild_ray.offline.demo_discriminator import DEMONSTRATIONS_FILE, DemoDiscriminatorProblem
from skild_ray.offline.job import MAX_WORKER_FAILURES, Channel, run_job
from skild_ray.offline.problem import DataKind, Inputs
from skild_ray.offline.skill_posterior import SkillPosteriorProblem
from skild_ray.offline.skill_prior import SkillPriorProblem
from skild_ray.offline.worker import STATE_FILE, worker_loop
from skild_ray.resources import offline_requests
from skild_ray.runs import storage
from skild_ray.runs.artifacts import Artifact, publish, writable
from skild_ray.runs.folder import work_folder
from skild_ray.tracking import Tracking

PROBLEMS: Mapping[str, type[Any]] = {
    "skill_prior": SkillPriorProblem,
    "skill_posterior": SkillPosteriorProblem,
    "demo_discriminator": DemoDiscriminatorProblem,
}
STAGE_DATA: Mapping[str, tuple[DataKind, ...]] = {
    "skill_prior": ("task_agnostic",),
    "skill_posterior": ("demonstrations",),
    "demo_discriminator": ("task_agnostic", "demonstrations"),
}


def train_stage(
    experiment: Experiment,
    stage: str,
    task_agnostic: Sequence[Trajectories],
    demonstrations: Sequence[Trajectories],
    inputs: Sequence[Artifact],
    fingerprint: str,
    tracking: Tracking | None = None,
) -> Artifact:
    """Train one offline stage as a Ray Train job and publish its artifact.

    Trajectories of a kind that the stage does not use may be left out.

    A job that was stopped, whoever stopped it, resumes from its last checkpoint when it is started again with the same
    fingerprint. SIGTERM and Ctrl-C write a checkpoint before they end it.

    Raises:
        ConfigError: the batch does not divide into the workers.
        DataError: the trajectories are too few or too short.
        SkildError: training failed or was stopped; one line with the reason.
        ArtifactError: the run directory cannot be written.
    """
    work = work_folder(experiment, stage, fingerprint)
    with writable(work):
        work.mkdir(parents=True, exist_ok=True)
        if not os.access(work, os.W_OK):
            raise PermissionError(13, "Permission denied", str(work))
    settings, resources = getattr(experiment, stage), experiment.resources
    share, rest = divmod(settings.batch_size, resources.train_workers)
    if rest:
        raise ConfigError(
            f"{stage}.batch_size {settings.batch_size} does not divide into resources.train_workers "
            f"{resources.train_workers}"
        )
    for_worker = experiment.model_copy(update={stage: settings.model_copy(update={"batch_size": share})})
    weights = {artifact.stage: artifact.weights() for artifact in inputs}
    made_from = Inputs(for_worker, task_agnostic, demonstrations, weights)
    made_from.require_windows(STAGE_DATA[stage])  # here, not in a worker that would be started again
    channel = Channel.here()
    (request,) = offline_requests(experiment)
    trainer = TorchTrainer(
        worker_loop,
        train_loop_config={
            "stage": stage,
            "problem": PROBLEMS[stage],
            "inputs": ray.put(made_from),
            "channel": channel,
            "threads": resources.cpus_per_train_worker,
        },
        scaling_config=ScalingConfig(
            num_workers=request.processes, use_gpu=resources.use_gpu, resources_per_worker=dict(request.each)
        ),
        run_config=RunConfig(
            name=work.name,
            storage_path=storage.uri(work.parent) or str(work.parent.resolve()),
            failure_config=FailureConfig(max_failures=MAX_WORKER_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    with (tracking or Tracking()).stage(stage, fingerprint, work) as series:
        outcome = run_job(trainer, channel, stage, settings.iterations, [request], series)
    with outcome.checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
    example = made_from.sources(STAGE_DATA[stage][0])[0]
    extra = [_save_demonstrations(work, demonstrations)] if stage == "demo_discriminator" else []
    artifact = publish(
        experiment,
        stage,
        state["best_weights"],
        state["rows"],
        fingerprint=fingerprint,
        data={kind: ",".join(source.fingerprint() for source in made_from.sources(kind)) for kind in STAGE_DATA[stage]},
        inputs=inputs,
        facts={
            "observation_dim": example.observation_dim,
            "action_dim": example.action_dim,
            "iterations": state["iteration"],
            "seconds": round(state["seconds"], 1),
            "best_validation_loss": next(iter(state["best_losses"].values())),
            "worker_restarts": outcome.restarts,
        },
        extra=extra,
        version=PROBLEMS[stage].version,
    )
    storage.remove(work)
    return artifact


def _save_demonstrations(folder: Path, demonstrations: Sequence[Trajectories]) -> Path:
    together = Trajectories.concatenate(demonstrations)
    path = folder / DEMONSTRATIONS_FILE
    with writable(path):
        arrays: dict[str, NDArray] = {
            "observations": together.observations,
            "actions": together.actions,
            "ends": together.ends,
        }
        safetensors.numpy.save_file(arrays, path)
    return path
