"""The final evaluation, and trackers."""

from typing import Literal

from pydantic import Field

from skild_ray.config.section import Section


class EvaluationSettings(Section):
    """The final evaluation of stage 4."""

    episodes: int = Field(100, gt=0, description="episodes, once deterministic and once sampled")
    num_envs: int = Field(25, gt=0, description="environments a process steps in lockstep")
    seed: int = Field(
        1_000, ge=0, description="seed of the evaluation episodes, apart from training's and those a sweep chooses on"
    )
    without_rl: bool = Field(
        True, description="the policies without reinforcement learning, too; runs on the same artifacts share them"
    )
    videos: int = Field(2, ge=0, description="deterministic episodes to film: a typical one, the worst, the best, ...")


class WandbSettings(Section):
    """A run at Weights & Biases; needs the extra `wandb`."""

    project: str | None = Field(None, description="default: WANDB_PROJECT, else skild_ray")
    entity: str | None = Field(None, description="user or team; default: WANDB_ENTITY, else that of the login")
    group: str | None = Field(
        None, description="runs that belong together, such as the seeds of one experiment; default: WANDB_RUN_GROUP"
    )
    tags: list[str] | None = Field(None, description="default: WANDB_TAGS")
    mode: Literal["online", "offline", "disabled"] | None = Field(
        None,
        description="offline: kept below the run's folder, without network or account, for `wandb sync`; default: "
        "WANDB_MODE, else online",
    )


class MLflowSettings(Section):
    """A run at MLflow; needs the extra `mlflow`."""

    uri: str | None = Field(
        None, description="tracking server; default: MLFLOW_TRACKING_URI, else the file mlflow.db in `runs`"
    )
    experiment: str | None = Field(None, description="default: MLFLOW_EXPERIMENT_NAME, else skild_ray")


class TrackingSettings(Section):
    """Trackers that get the metrics of every stage, besides the files that are always written."""

    wandb: WandbSettings | None = Field(None, description="default: none; {} for its own defaults")
    mlflow: MLflowSettings | None = Field(None, description="default: none; {} for its own defaults")
