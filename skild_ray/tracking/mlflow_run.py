"""MLflow, through Ray's integration: one run for all stages."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skild_ray.config import Experiment, MLflowSettings
from skild_ray.plugins import import_extra
from skild_ray.runs.folder import run_folder
from skild_ray.tracking.external import ExternalRun
from skild_ray.tracking.files import MetricsRow

logger = logging.getLogger(__name__)

# Its own are 7 and 120: training would stand still for minutes where the server is gone.
HTTP_SETTINGS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MLflowRun(ExternalRun):
    """Settings as parameters, metrics as `<stage>/<name>` over the stage's own steps, page and videos as artifacts.

    Raises:
        ConfigError: the package is missing or broken.
    """

    title = "MLflow"

    def __init__(self, experiment: Experiment, settings: MLflowSettings) -> None:
        super().__init__(run_folder(experiment) / "mlflow.json")
        self._mlflow: Any = import_extra("mlflow", "mlflow", "tracking.mlflow")
        self._experiment, self._settings = experiment, settings
        for name, value in HTTP_SETTINGS.items():
            os.environ.setdefault(name, value)
        for name in ("mlflow", "alembic"):  # they tell every table of a new database
            logging.getLogger(name).setLevel(logging.WARNING)

    def _open(self) -> None:
        from ray.air.integrations.mlflow import setup_mlflow

        runs = run_folder(self._experiment).parent.resolve()
        uri, artifacts = self._settings.uri or os.environ.get("MLFLOW_TRACKING_URI"), None
        if uri is None:
            uri, artifacts = f"sqlite:///{runs / 'mlflow.db'}", (runs / "mlflow_artifacts").as_uri()
        self._mlflow.set_tracking_uri(uri)
        name = self._settings.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "skild_ray"
        known = self.id
        if known:
            self._mlflow.start_run(run_id=known)
        setup_mlflow(  # goes on with a run that is active; parameters of a run cannot be changed
            None if known else self._experiment.model_dump(mode="json", exclude={"tracking"}),
            tracking_uri=uri,
            experiment_name=name,
            run_name=self._experiment.name,
            artifact_location=artifacts,
            create_experiment_if_not_exists=True,
        )
        active = self._mlflow.active_run()
        assert active
        self.id = active.info.run_id
        self._note(0)
        logger.info(f"{self.title}: run {self.id} of experiment {name} at {uri}")

    def _send(self, stage: str, row: MetricsRow) -> None:
        # The active run is that of one thread, and rows come from another.
        step, *names = row
        metrics = {f"{stage}/{name}": row[name] for name in names}
        self._mlflow.log_metrics(metrics, step=int(row[step]), run_id=self.id)

    def _send_outcome(self, results: Mapping[str, Any], report: Path, videos: list[Path]) -> None:
        numbers = {f"evaluation/{name}": value for name, value in results.items() if isinstance(value, int | float)}
        self._mlflow.log_metrics(numbers, run_id=self.id)
        self._mlflow.log_dict(dict(results), "evaluation.json", run_id=self.id)
        self._mlflow.log_artifact(str(report), run_id=self.id)
        for path in videos:
            self._mlflow.log_artifact(str(path), "videos", run_id=self.id)

    def _finish(self, succeeded: bool) -> None:
        self._mlflow.end_run("FINISHED" if succeeded else "FAILED")
