"""The offline stages: one Ray Train job each, from data and inputs to the published artifact."""

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from skild_ray.config import Experiment
from skild_ray.data.trajectories import Trajectories
from skild_ray.errors import ConfigError
from skild_ray.offline.channel import Channel
from skild_ray.offline.job import MAX_WORKER_FAILURES, run_job
from skild_ray.offline.problem import Inputs
from skild_ray.offline.worker import STATE_FILE, worker_loop
from skild_ray.resources import offline_requests
from skild_ray.runs import storage
from skild_ray.runs.artifacts import Artifact, publish, writable
from skild_ray.runs.folder import work_folder
from skild_ray.stages import OFFLINE
from skild_ray.tracking import Tracking


def problem_of(stage: str) -> type[Any]:
    """The class of an offline stage's `Problem`."""
    module, _, name = OFFLINE[stage].problem.partition(":")
    problem: type[Any] = getattr(importlib.import_module(module), name)
    return problem


def train_stage(
    experiment: Experiment,
    name: str,
    task_agnostic: Sequence[Trajectories],
    demonstrations: Sequence[Trajectories],
    inputs: Sequence[Artifact],
    fingerprint: str,
    tracking: Tracking | None = None,
) -> Artifact:
    """Train one offline stage as a Ray Train job and publish its artifact.

    Trajectories of a kind that the stage (a name of `stages.OFFLINE`) does not use may be left out.

    A job that was stopped, whoever stopped it, resumes from its last checkpoint when it is started again with the same
    fingerprint. SIGTERM and Ctrl-C write a checkpoint before they end it.

    Raises:
        ConfigError: the batch does not divide into the workers.
        DataError: the trajectories are too few or too short.
        SkildError: training failed or was stopped; one line with the reason.
        ArtifactError: the run directory cannot be written.
    """
    stage, problem = OFFLINE[name], problem_of(name)
    work = work_folder(experiment, name, fingerprint)
    with writable(work):
        work.mkdir(parents=True, exist_ok=True)
        if not os.access(work, os.W_OK):
            raise PermissionError(13, "Permission denied", str(work))
    settings, resources = getattr(experiment, name), experiment.resources
    if settings.batch_size % resources.train_workers:
        raise ConfigError(
            f"{name}.batch_size {settings.batch_size} does not divide into resources.train_workers "
            f"{resources.train_workers}"
        )
    weights = {artifact.stage: artifact.weights() for artifact in inputs}
    made_from = Inputs(experiment, task_agnostic, demonstrations, weights, resources.train_workers)
    made_from.require_windows(stage.data)  # here, not in a worker that would be started again
    channel = Channel.here()
    (request,) = offline_requests(experiment)
    trainer = TorchTrainer(
        worker_loop,
        train_loop_config={
            "stage": name,
            "problem": problem,
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
    with (tracking or Tracking()).stage(name, fingerprint, work) as series:
        outcome = run_job(trainer, channel, name, settings.iterations, [request], series)
    with outcome.checkpoint.as_directory() as folder:
        state = torch.load(Path(folder) / STATE_FILE, map_location="cpu", weights_only=True)
    example = made_from.sources(stage.data[0])[0]
    artifact = publish(
        experiment,
        name,
        state["best_weights"],
        state["rows"],
        fingerprint=fingerprint,
        data={kind: ",".join(source.fingerprint() for source in made_from.sources(kind)) for kind in stage.data},
        inputs=inputs,
        facts={
            "observation_dim": example.observation_dim,
            "action_dim": example.action_dim,
            "iterations": state["iteration"],
            "seconds": round(state["seconds"], 1),
            "best_validation_loss": next(iter(state["best_losses"].values())),
            "worker_restarts": outcome.restarts,
        },
        extra=problem.extra_files(made_from, work),
        version=problem.version,
    )
    storage.remove(work)
    return artifact
