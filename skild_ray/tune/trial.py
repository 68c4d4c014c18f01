"""One trial: stage 4 of a configuration, report by report, so that it can be judged, stopped, cloned and resumed."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune
from ray.tune import PlacementGroupFactory
from ray.tune.result import DONE, SHOULD_CHECKPOINT

from skild_ray.algorithms.checkpoints import ROWS_FILE
from skild_ray.algorithms.off_policy import OffPolicy
from skild_ray.algorithms.registry import last_stage
from skild_ray.algorithms.train import (
    algorithm_config,
    check_finite,
    checkpoint_is_due,
    metrics_row,
    placement,
    publish_policy,
    require_budget,
    try_environment,
)
from skild_ray.config import EvaluationSettings, with_values
from skild_ray.errors import SkildError
from skild_ray.evaluation.agent import Agent, load_agent
from skild_ray.evaluation.results import Summary
from skild_ray.evaluation.rollouts import play, summarise
from skild_ray.log import LOGGER, show_lines
from skild_ray.pipeline import Run
from skild_ray.runs.artifacts import open_artifact
from skild_ray.runs.folder import run_folder
from skild_ray.tracking import MetricsRow
from skild_ray.tune.offline import trial_run
from skild_ray.tune.sweep import EVALUATION_METRICS, Sweep, Values

RESULT_FILE = "result.json"


class Trial(tune.Trainable):
    """Trains `config`, values by key, on the offline artifacts it shares with others.

    Its run is `trials/<trial id>` in the sweep's folder. A report comes each `progress.report_interval_s`, a checkpoint
    each `progress.checkpoint_interval_s`. A trial that has finished before says so at once.
    """

    def setup(self, config: Values, sweep: Sweep, log_level: int = logging.INFO) -> None:
        show_lines(log_level)
        self._values, self._sweep = dict(config), sweep
        self.experiment = trial_run(with_values(sweep.base, config), sweep.folder, self.trial_id)
        self._rows: list[MetricsRow] = []
        self._saved = time.monotonic()
        self._algo: OffPolicy | None = None
        if not self._finished() and sweep.offline_stage is None:
            run = Run(self.experiment)
            self._made_from = run.fingerprint(last_stage(self.experiment).name), run.direct_data()
            settings = algorithm_config(self.experiment)
            self._subtasks = try_environment(settings)
            self._algo = settings.build_algo()

    def step(self) -> dict[str, Any]:
        if finished := self._finished():
            return finished
        if self._algo is None:
            artifact = open_artifact(run_folder(self.experiment), str(self._sweep.offline_stage))
            return self._finish({self._sweep.metric: artifact.facts["best_validation_loss"]})
        if not self._algo.finished:
            return self._train(self._algo)
        if not self._rows:
            require_budget(self._algo, self.experiment)
        publish_policy(self._algo, self.experiment, self._rows, *self._made_from)
        return self._finish(self._rows[-1] | self._evaluation())

    def _train(self, algo: OffPolicy) -> dict[str, Any]:
        started, before = time.monotonic(), self._rows[-1]["seconds"] if self._rows else 0.0
        steps = algo.steps
        row = metrics_row(algo.train(), algo, self._subtasks, before + time.monotonic() - started)
        check_finite(row, self.experiment)
        self._rows.append(row)
        due = checkpoint_is_due(self.experiment, steps, algo, self._saved)
        return row | {SHOULD_CHECKPOINT: due or algo.finished}

    def _evaluation(self) -> MetricsRow:
        """What the deterministic policy reaches, if the metric is among it."""
        if self._sweep.metric not in EVALUATION_METRICS:
            return {}
        summary = selection_summary(load_agent(run_folder(self.experiment)), self.experiment.evaluation)
        return {name: getattr(summary, name.removeprefix("evaluation.")) for name in EVALUATION_METRICS}

    def _finish(self, row: MetricsRow) -> dict[str, Any]:
        """The last report. It is kept, so that a sweep which is killed before it has noted it need not ask again."""
        if self._sweep.metric not in row:
            raise SkildError(f"no episode has ended, so that '{self._sweep.metric}' is unknown; raise total_env_steps")
        content = json.dumps({"values": self._values, "row": row})
        (run_folder(self.experiment) / RESULT_FILE).write_text(content)
        return row | {DONE: True}

    def _finished(self) -> dict[str, Any] | None:
        path = run_folder(self.experiment) / RESULT_FILE
        stored = json.loads(path.read_text()) if path.exists() else {}
        return stored["row"] | {DONE: True} if stored.get("values") == self._values else None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """As stage 4 of a pipeline writes them; nothing for a trial that has finished."""
        self._saved = time.monotonic()
        if self._algo:
            self._algo.save_to_path(checkpoint_dir)
        (Path(checkpoint_dir) / ROWS_FILE).write_text(json.dumps(self._rows))

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Go on from a trial's checkpoint, this one's or another's, with the settings of this configuration."""
        self._rows = json.loads((Path(checkpoint) / ROWS_FILE).read_text())
        if self._algo:
            self._algo.restore_from_path(str(checkpoint))

    def reset_config(self, new_config: Values) -> bool:
        """Become another trial: this process has everything loaded that a new one would have to."""
        self.cleanup()
        Trial.setup(self, new_config, self._sweep, LOGGER.level)
        return True

    def cleanup(self) -> None:
        if self._algo:
            self._algo.stop()


def selection_seed(evaluation_seed: int) -> int:
    """The seed of the episodes that trials are compared on: from a child of `evaluation.seed`'s SeedSequence.

    The best of many trials is partly the luckiest on its episodes. `evaluation.seed`, on which a pipeline reports it,
    has others.
    """
    (child,) = np.random.SeedSequence(evaluation_seed).spawn(1)
    return int(child.generate_state(1)[0])


def selection_summary(agent: Agent, settings: EvaluationSettings) -> Summary:
    """The summary of `settings.episodes` episodes of `selection_seed`, deterministic."""
    seed = selection_seed(settings.seed)
    return summarise(play(agent, settings.episodes, seed, deterministic=True), agent.env_steps, seed)


def trial_resources(sweep: Sweep, values: Values) -> PlacementGroupFactory:
    """One group for the learner and all env runners of a trial: it starts when all have their place, or waits."""
    if sweep.offline_stage:
        return PlacementGroupFactory([{"CPU": 1}])
    return placement(with_values(sweep.base, values))
