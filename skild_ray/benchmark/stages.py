"""Offline stages that the cells of a benchmark share: each is trained once, for whichever cell needs it first."""

import os
import shutil
import threading
from pathlib import Path

from skild_ray.pipeline import Run
from skild_ray.runs.artifacts import writable
from skild_ray.runs.fingerprint import fingerprint
from skild_ray.runs.folder import run_folder
from skild_ray.runs.reuse import settings_of


class SharedStages:
    """The artifacts by what they are made from, `folder/<stage>-<fingerprint>`; the runs that use them have links."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[str, threading.Lock] = {}

    def provide(self, run: Run, stage: str, made_from: str) -> None:
        """Link a finished stage into a run; train it there, and move it here, if no run has done so before.

        Threads that ask for the same stage wait for the one that trains it. If that fails, the next one tries.

        Args:
            run: has the inputs of the stage.
            stage: an offline one.
            made_from: `run.fingerprint(stage)`.

        Raises:
            SkildError: see `Run.train`.
        """
        # The settings as well: what is made from equal data that are named otherwise is refused as an input.
        name = f"{stage}-{fingerprint(made_from, settings_of(run.experiment, stage))}"
        own, shared = run_folder(run.experiment) / stage, self._folder / name
        with self._locks.setdefault(name, threading.Lock()):
            if own.is_symlink():
                own.unlink()
            made_here = not shared.exists()
            if made_here:
                run.train(stage)
            with writable(shared):
                for folder in (own.parent, self._folder):
                    folder.mkdir(parents=True, exist_ok=True)
                if made_here:
                    own.rename(shared)
                shutil.rmtree(own, ignore_errors=True)  # of other settings, before they were changed
                own.symlink_to(os.path.relpath(shared, own.parent), target_is_directory=True)
