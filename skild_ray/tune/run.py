"""Runs a sweep: Ray Tune with the trials of this package, from the start or from where it was left."""

import functools
import logging
import os
import time
from collections.abc import Sequence
from typing import Any

import yaml
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search import BasicVariantGenerator

from skild_ray.cluster import connect
from skild_ray.errors import ConfigError, reason
from skild_ray.interruption import Interrupted, interrupted
from skild_ray.log import LOGGER
from skild_ray.resources import Request, Waiting, check, downstream_requests
from skild_ray.runs.artifacts import writable
from skild_ray.runs.lock import locked
from skild_ray.tune.offline import OfflineRuns
from skild_ray.tune.proposals import Proposals
from skild_ray.tune.results import Outcome, outcomes, short
from skild_ray.tune.sweep import Sweep, clamped
from skild_ray.tune.trial import Trial, trial_resources

logger = logging.getLogger(__name__)

SWEEP_FILE, TUNE_FOLDER = "sweep.yaml", "tune"
TIME = "env_steps"
TRIAL_FAILURES = 1  # those of preempted nodes do not count
LINE_INTERVAL_S = 10.0


def run_sweep(sweep: Sweep, resume: bool = False) -> list[Outcome]:
    """Every trial's outcome, the best first.

    Everything lies in `runs/<sweep>`: `offline/` the stages that trials share, `trials/` a run for each, `tune/` what
    Ray Tune keeps. A trial that fails does not end the sweep.

    Args:
        sweep: what to try.
        resume: resume a sweep that was stopped or killed; its finished trials stay, failed ones are tried again.

    Raises:
        ConfigError: it exists and is not to be resumed, or the reverse, or it is another one.
        SkildError: another process works on it, or this machine cannot hold one trial.
        Interrupted: SIGTERM or Ctrl-C ended it.
    """
    with locked(sweep.folder):
        try:
            return _run_sweep(sweep, resume)
        except (Interrupted, SystemError) as error:
            message = f"{sweep.folder}: stopped; the same command with --resume resumes it"
            raise interrupted(error, message) or error from None


def _run_sweep(sweep: Sweep, resume: bool) -> list[Outcome]:
    config = _tune_config(sweep)
    _claim(sweep, resume)
    # Trials find their files by the same paths as this process, and a metric may come with the last report only.
    os.environ |= {"RAY_CHDIR_TO_TRIAL_DIR": "0", "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1"}
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new one ignores that it is not wanted
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # it would end a stopped sweep as if it were finished
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "2")  # what a kill can make it forget
    connect()
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # `Lines` says it in one
    requests = [Request("trials", "concurrent", 1, {"CPU": 1.0})]
    if not sweep.offline_stage:
        requests += downstream_requests(sweep.base)
    check("a trial", requests)
    if sweep.scheduler.pbt:
        OfflineRuns(sweep.folder, sweep.offline_stages).require(sweep.base).result()
    trainable = tune.with_resources(
        tune.with_parameters(Trial, sweep=sweep, log_level=LOGGER.getEffectiveLevel()),
        functools.partial(trial_resources, sweep),
    )
    stored = sweep.folder / TUNE_FOLDER
    if any(stored.glob("experiment_state-*.json")):
        tuner = tune.Tuner.restore(str(stored), trainable, resume_errored=True)
    else:
        tuner = tune.Tuner(
            trainable, param_space=_param_space(sweep), tune_config=config, run_config=_run_config(sweep)
        )
    with Waiting("a trial", requests, started=True):
        return outcomes(sweep, tuner.fit())


def _claim(sweep: Sweep, resume: bool) -> None:
    """Make the sweep's folder, or check that it holds this sweep."""
    path = sweep.folder / SWEEP_FILE
    content = sweep.model_dump(mode="json") | {"experiment": sweep.base.model_dump(mode="json")}
    if not resume:
        if path.exists():
            raise ConfigError(f"{sweep.folder}: holds a sweep; resume it with --resume, or --set name=ANOTHER")
        with writable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(content, sort_keys=False))
        return
    if not path.exists():
        raise ConfigError(f"{sweep.folder}: there is no sweep to resume; leave out --resume")
    before = yaml.safe_load(path.read_text())
    different = [key for key in content if content[key] != before.get(key)]
    if different:
        raise ConfigError(f"{sweep.folder}: was begun with another '{different[0]}'; --resume takes the same sweep")


def _param_space(sweep: Sweep) -> dict[str, Any]:
    """Of a population only: what its first members get is listed, what becomes of them is the scheduler's."""
    if not sweep.scheduler.pbt:
        return {}
    return {"seed": sweep.base.seed, **{key: dimension.domain for key, dimension in sweep.space.items()}}


def _tune_config(sweep: Sweep) -> tune.TuneConfig:
    count = sweep.samples if sweep.search == "optuna" else len(sweep.configurations())
    # Tune refuses a population with any other search than its own. It has one offline configuration, trained before.
    population = sweep.scheduler.pbt is not None
    return tune.TuneConfig(
        metric=sweep.metric,
        mode=sweep.mode,
        search_alg=BasicVariantGenerator(sweep.configurations()) if population else Proposals(sweep),
        scheduler=_scheduler(sweep),
        num_samples=count,
        max_concurrent_trials=sweep.concurrent,
        reuse_actors=True,
        trial_name_creator=_name,
        trial_dirname_creator=_name,
    )


def _run_config(sweep: Sweep) -> tune.RunConfig:
    return tune.RunConfig(
        name=TUNE_FOLDER,
        storage_path=str(sweep.folder),
        callbacks=[Lines(sweep.metric)],
        failure_config=tune.FailureConfig(max_failures=TRIAL_FAILURES),
        # A trial of a population may be asked to go on from what another had some perturbations ago.
        checkpoint_config=tune.CheckpointConfig(num_to_keep=4 if sweep.scheduler.pbt else 2),
        verbose=0,
    )


def _scheduler(sweep: Sweep) -> TrialScheduler:
    asha, median, pbt = sweep.scheduler.asha, sweep.scheduler.median, sweep.scheduler.pbt
    if asha:
        return AsyncHyperBandScheduler(
            time_attr=TIME,
            max_t=sweep.base.algorithm.total_env_steps,
            grace_period=asha.grace_env_steps,
            reduction_factor=asha.reduction_factor,
            stop_last_trials=False,  # they end by themselves, and then publish what they have learned
        )
    if median:
        return MedianStoppingRule(
            time_attr=TIME, grace_period=median.grace_env_steps, min_samples_required=median.min_trials
        )
    if pbt:
        return PopulationBasedTraining(
            time_attr=TIME,
            perturbation_interval=pbt.interval_env_steps,
            quantile_fraction=pbt.quantile,
            resample_probability=pbt.resample,
            hyperparam_mutations={
                key: dimension.choice or dimension.grid or dimension.domain for key, dimension in sweep.space.items()
            },
            custom_explore_fn=functools.partial(clamped, space=sweep.space),
            require_attrs=False,
            # All members are compared at the same env steps, also where the cluster cannot run all of them at a time.
            synch=True,
        )
    return FIFOScheduler()


def _name(trial: TuneTrial) -> str:
    return str(trial.trial_id)


class Lines(tune.Callback):
    """Says in plain lines how a sweep is getting on."""

    def __init__(self, metric: str) -> None:
        self._metric, self._said = metric, float("-inf")

    def on_trial_start(self, iteration: int, trials: Sequence[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        logger.info(f"trial {trial}: {', '.join(f'{key} {short(value)}' for key, value in trial.config.items())}")

    def on_trial_result(
        self, iteration: int, trials: Sequence[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        if time.monotonic() - self._said < LINE_INTERVAL_S:
            return
        self._said = time.monotonic()
        running = [
            f"{one} {one.last_result.get(TIME, 0):,.0f} env steps, {self._result(one)}"
            for one in trials
            if one.status == TuneTrial.RUNNING and one.last_result
        ]
        over = sum(one.is_finished() for one in trials)
        logger.info(f"sweep: {over} of {len(trials)} trials over; running: {'; '.join(running) or 'none'}")

    def on_trial_complete(self, iteration: int, trials: Sequence[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        logger.info(f"trial {trial}: over, {self._result(trial)}")

    def on_trial_error(self, iteration: int, trials: Sequence[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        logger.warning(f"trial {trial}: failed: {reason(trial.get_error())}")

    def _result(self, trial: TuneTrial) -> str:
        return f"{self._metric} {short(trial.last_result.get(self._metric, 'unknown'))}"
