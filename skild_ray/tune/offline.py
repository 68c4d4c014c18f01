"""Stages 1 to 3 of a sweep: each configuration of them is trained once, whoever needs it."""

import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

from skild_ray.config import Experiment
from skild_ray.pipeline import Run
from skild_ray.runs.fingerprint import fingerprint
from skild_ray.runs.folder import run_folder
from skild_ray.stages import OFFLINE

# Together with the seed, all that the offline stages depend on.
SECTIONS = ("environment", "data", "skill", *OFFLINE)


def offline_run(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment as a run that all with the same offline configuration share: `folder/offline/<fingerprint>`."""
    parts = fingerprint(experiment.seed, *(getattr(experiment, section) for section in SECTIONS))
    return experiment.model_copy(update={"runs": os.fspath(folder / "offline"), "name": parts})


def trial_folder(folder: Path, trial_id: str) -> Path:
    """The run of a trial, in the sweep's folder."""
    return folder / "trials" / trial_id


def trial_run(experiment: Experiment, folder: Path, trial_id: str) -> Experiment:
    """The experiment as a run of its own, in `trial_folder`, with links to the finished stages it shares."""
    own = trial_folder(folder, trial_id)
    run = experiment.model_copy(update={"runs": os.fspath(own.parent), "name": own.name})
    shared = run_folder(offline_run(experiment, folder))
    run_folder(run).mkdir(parents=True, exist_ok=True)
    for stage in OFFLINE:
        link = run_folder(run) / stage
        if (shared / stage).exists() and not link.is_symlink():
            link.symlink_to(os.path.relpath(shared / stage, link.parent), target_is_directory=True)
    return run


class OfflineRuns:
    """Trains offline configurations aside, each with all that the cluster has to spare.

    They are no part of a trial: one that waits for its skills would hold the cores that they need to be trained.
    """

    def __init__(self, folder: Path, stages: Sequence[str]) -> None:
        self._folder, self._stages = folder, stages
        self._runs: dict[str, Future[None]] = {}

    def require(self, experiment: Experiment) -> Future[None]:
        """The training of what this experiment needs, started if it is the first to ask."""
        run = offline_run(experiment, self._folder)
        if run.name not in self._runs:
            self._runs[run.name] = Future()
            # It must not keep a sweep that is interrupted from ending; what it leaves behind is resumed.
            threading.Thread(target=self._train, args=(run, self._runs[run.name]), daemon=True).start()
        return self._runs[run.name]

    def _train(self, experiment: Experiment, done: Future[None]) -> None:
        try:
            run = Run(experiment)
            for stage in self._stages:
                run.train(stage)
            run.direct_data()  # data that stage 4 learns from directly, made here where they are missing
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(None)
