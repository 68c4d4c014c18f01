"""Where a run is."""

from pathlib import Path

from skild_ray.config import Experiment
from skild_ray.runs.storage import local_folder

WORK_FOLDER = ".work"
"""Of a run: checkpoints and metrics of stages that are not finished, and of stage 4."""


def run_folder(experiment: Experiment) -> Path:
    """`runs/<name>`, or its copy on this node: the folder of all stages of this experiment."""
    return local_folder(experiment.runs) / experiment.name


def work_folder(experiment: Experiment, stage: str, fingerprint: str) -> Path:
    """Where a stage that is made from the inputs of `fingerprint` keeps its checkpoints and, while it runs, metrics."""
    return run_folder(experiment) / WORK_FOLDER / f"{stage}-{fingerprint}"
