"""What runs where on the cluster, and how often it reports and saves."""

from typing import Literal

from pydantic import Field

from skild_ray.config.section import Section


class RolloutSettings(Section):
    """Who collects experience, and how often the policy reaches them."""

    num_env_runners: int = Field(1, ge=0, description="runner processes; 0: sample in the learner's process")
    num_envs_per_env_runner: int = Field(16, gt=0, description="environments a runner steps in lockstep")
    decisions_per_fragment: int = Field(
        64, gt=0, description="decisions of the policy over all environments a sampling request"
    )
    placement: Literal["SPREAD", "PACK"] = Field("SPREAD", description="runners on as many, or as few, nodes as can be")
    cpus_per_env_runner: float = Field(1.0, gt=0, description="cores of each runner")
    env_runner_resources: dict[str, float] = Field(
        {}, description="custom resources of each runner, such as {simulator: 1}: only nodes that have them get one"
    )
    answer_timeout_s: float = Field(
        60.0,
        gt=0,
        description="a runner that is silent for so long, and ten times as long as is usual, is replaced",
    )


class ResourceSettings(Section):
    """What each stage may use of the cluster."""

    train_workers: int = Field(1, gt=0, description="Ray Train workers of an offline stage")
    cpus_per_train_worker: int = Field(1, gt=0, description="cores, and torch threads, of each")
    use_gpu: bool = Field(False, description="offline stages and learners on GPUs")
    num_learners: int = Field(0, ge=0, description="remote learners; 0: in the driver")
    learner_threads: int = Field(1, gt=0, description="torch threads, and cores where it is remote, of each learner")
    data_workers: int | None = Field(None, gt=0, description="parallel tasks that generate data; default: all cores")


class ProgressSettings(Section):
    """How often a long run reports and saves."""

    report_interval_s: float = Field(5.0, gt=0, description="seconds between lines of metrics in stage 4")
    checkpoint_interval_s: float = Field(60.0, gt=0, description="seconds between checkpoints in stage 4")
    checkpoint_env_steps: int = Field(
        50_000, gt=0, description="the same with algorithm.synchronous, in env steps; offline updates count as many"
    )
    keep_checkpoints: int = Field(2, gt=0)
