"""Where a run is."""

from pathlib import Path

from skild_ray.config import Experiment
from skild_ray.runs.storage import local_folder


def run_folder(experiment: Experiment) -> Path:
    """`runs/<name>`, or its copy on this node: the folder of all stages of this experiment."""
    return local_folder(experiment.runs) / experiment.name


def work_folder(experiment: Experiment, stage: str, fingerprint: str) -> Path:
    """Where a stage that is made from the inputs of `fingerprint` keeps its checkpoints and, while it runs, metrics."""
    return run_folder(experiment) / ".work" / f"{stage}-{fingerprint}"
