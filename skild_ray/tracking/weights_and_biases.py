"""Weights & Biases: one run for all stages, each with a step axis of its own."""

import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skild_ray.config import Experiment, WandbSettings
from skild_ray.errors import ConfigError, one_line
from skild_ray.plugins import import_extra
from skild_ray.runs.folder import run_folder
from skild_ray.tracking.external import ExternalRun
from skild_ray.tracking.files import MetricsRow

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    import wandb

INIT_TIMEOUT_S = 30.0
FINISH_TIMEOUT_S = 60.0
FLUSH_INTERVAL_S = 0.1
OFFLINE = ("offline", "dryrun")  # two names of it


class WandbRun(ExternalRun):
    """Metrics as `<stage>/<name>`, the evaluation in the summary, the page as `report`, videos as `videos/<name>`.

    A server that is out of reach when the run is opened makes it an offline run, to be sent later by `wandb sync`.

    What the experiment leaves open is decided by W&B's own variables and settings: WANDB_MODE, WANDB_PROJECT,
    WANDB_ENTITY, WANDB_RUN_GROUP, WANDB_TAGS, WANDB_DIR.

    Raises:
        ConfigError: the package is missing or broken, there is no login for an online run, or W&B refuses a setting.
    """

    title = "Weights & Biases"
    settle_s = 5.0

    def __init__(self, experiment: Experiment, settings: WandbSettings) -> None:
        super().__init__(run_folder(experiment) / "wandb.json")
        otherwise = "--set tracking.wandb.mode=disabled"
        self._wandb: Any = import_extra("wandb", "wandb", "tracking.wandb", f", or leave it out with {otherwise}")
        self._experiment, self._settings = experiment, settings
        self._run: wandb.Run | None = None
        self._axes: set[str] = set()
        try:
            own = {"mode": settings.mode} if settings.mode else {}
            known = self._wandb.setup(self._wandb.Settings(silent=True, **own)).settings
            self._mode, self._project = known.mode, settings.project or known.project or "skild_ray"
            logged_in = self._mode in (*OFFLINE, "disabled") or self._wandb.login(prompt=False, verify=False)
        except Exception as error:  # it has many kinds, and pydantic's
            raise ConfigError(
                f"tracking.wandb: {one_line(error)[:200]}; correct that key or variable WANDB_..., or leave W&B "
                f"out with {otherwise}"
            ) from None
        if not logged_in:
            raise ConfigError(
                "tracking.wandb: no login; run wandb login, set WANDB_API_KEY, or keep the run on disk with --set "
                "tracking.wandb.mode=offline"
            )

    def _open(self) -> None:
        self.id = self.id or uuid.uuid4().hex[:12]
        self._note(0)
        self._axes.clear()
        reason = None
        if self._mode not in OFFLINE:
            try:
                self._run = self._init(self._mode)
                logger.info(f"{self.title}: {self._run.url or self._mode}")
                return
            except Exception as error:  # no server, or one that refuses: its own client tries for a while
                reason = one_line(error)[:200]
                self._wandb.teardown()  # its service holds on to the id of the run that failed
        self._run = self._init("offline")
        where = Path(self._run.dir).parents[1]
        cause = f" ({reason})" if reason else ""
        level = logging.WARNING if reason else logging.INFO
        logger.log(level, f"{self.title}: offline in {where}{cause}; send it with: wandb sync {where}")

    def _init(self, mode: Any) -> "wandb.Run":
        experiment, settings = self._experiment, self._settings
        return self._wandb.init(
            project=self._project,
            entity=settings.entity,
            group=settings.group,
            tags=settings.tags,
            name=experiment.name,
            id=self.id,
            resume="allow",
            mode=mode,
            dir=os.environ.get("WANDB_DIR") or str(run_folder(experiment)),
            config=experiment.model_dump(mode="json"),
            settings=self._wandb.Settings(
                silent=True,
                console="off",
                init_timeout=INIT_TIMEOUT_S,
                finish_timeout=FINISH_TIMEOUT_S,
                x_transaction_log_flush_interval=FLUSH_INTERVAL_S,  # its own 15 s would be lost in a kill
            ),
        )

    def _send(self, stage: str, row: MetricsRow) -> None:
        assert self._run
        if stage not in self._axes:
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/{next(iter(row))}")
            self._axes.add(stage)
        self._log({f"{stage}/{name}": value for name, value in row.items()})

    def _send_outcome(self, results: Mapping[str, Any], report: Path, videos: list[Path]) -> None:
        assert self._run
        self._run.summary.update({"evaluation": dict(results)})
        media: dict[str, Any] = {"report": self._wandb.Html(str(report), inject=False)}
        media |= {f"videos/{path.stem}": self._wandb.Video(str(path), format="mp4") for path in videos}
        self._log(media)
        self._note()

    def _log(self, content: dict[str, Any]) -> None:
        # A step of our own: it goes on where the run was left, which an offline run does not know.
        assert self._run
        self._run.log(content, step=self.sent, commit=True)

    def _finish(self, succeeded: bool) -> None:
        if self._run:
            self._run.finish(exit_code=0 if succeeded else 1)
        self._run = None
