"""Runs the stages in order: each knows what it needs, and is skipped where its artifact is still up to date."""

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from skild_ray.algorithms.earlier_runs import REPLAY_FILE, open_earlier
from skild_ray.algorithms.prior_data import PriorDataConfig
from skild_ray.algorithms.registry import last_stage, spec_of
from skild_ray.algorithms.stored_transitions import load_transitions, transitions_fingerprint
from skild_ray.algorithms.train import algorithm_config, train_downstream
from skild_ray.cluster import connect
from skild_ray.config import Experiment, Rewards, load_experiment, to_yaml
from skild_ray.data.trajectories import Trajectories
from skild_ray.envs import make_env
from skild_ray.envs.try_out import try_out
from skild_ray.errors import ArtifactError, ConfigError
from skild_ray.evaluation.evaluate import evaluate_run
from skild_ray.evaluation.results import Evaluation
from skild_ray.generation.sources import load_sources, stored_sources, with_action_bounds
from skild_ray.offline.loop import problem_of, train_stage
from skild_ray.report.run_page import write_report
from skild_ray.resources import check, downstream_requests, offline_requests
from skild_ray.runs import storage
from skild_ray.runs.artifacts import CONFIG_FILE, Artifact, open_artifact, writable
from skild_ray.runs.fingerprint import fingerprint
from skild_ray.runs.folder import run_folder, work_folder
from skild_ray.runs.lock import locked
from skild_ray.runs.reuse import changed_settings, differences, require_replaceable, settings_of
from skild_ray.stages import (
    DEMONSTRATIONS,
    OFFLINE,
    SKILL_PRIOR,
    DataKind,
    Stage,
    command_name,
    train_command,
)
from skild_ray.tracking import Tracking

logger = logging.getLogger(__name__)

Report = Callable[[str], None]


class Finished(NamedTuple):
    """What `run_pipeline` leaves behind."""

    artifact: Artifact
    """Of the last stage: the policy."""
    results: Evaluation
    """Its evaluation."""
    report: Path
    """The page on the run."""


def run_pipeline(
    experiment: Experiment | str | Path, data: Mapping[str, Trajectories] | None = None, *, force: bool = False
) -> Finished:
    """Everything that an experiment needs: data, all stages, the final evaluation and the report.

    What is finished and still fits is reused; what was interrupted resumes where it stopped.

    Args:
        experiment: itself, or its file.
        data: see `Run`.
        force: see `Run`.

    Raises:
        SkildError: one line that says what is wrong and what to do.
    """
    if not isinstance(experiment, Experiment):
        experiment = load_experiment(experiment)
    settings = experiment.evaluation
    with locked(run_folder(experiment)), Tracking.of(experiment) as tracking:
        artifact = Run(experiment, tracking=tracking, force=force, data=data).train_all()
        results = evaluate_run(artifact.path, settings.episodes, settings.seed, settings.videos, settings.without_rl)
        page = write_report(run_folder(experiment))
        tracking.outcome(results.to_json(), page, artifact.path)
    return Finished(artifact, results, page)


class Run:
    """One experiment's stages. Data sets are loaded once, when a stage first needs them.

    Args:
        experiment: what to run.
        report: gets a line on each stage.
        tracking: what gets the metrics besides the files.
        force: replace finished stages that were made otherwise, also where others were made from them.
        data: trajectories in memory in place of the sources of these names; what they hold decides, as with files,
            whether a finished stage is reused.

    Raises:
        ConfigError: the experiment has no source of a name in `data`.
        SkildError: `runs` is a URI that cannot be reached; or see `with_action_bounds`.
    """

    def __init__(
        self,
        experiment: Experiment,
        report: Report = logger.info,
        tracking: Tracking | None = None,
        force: bool = False,
        data: Mapping[str, Trajectories] | None = None,
    ) -> None:
        storage.require(experiment.runs)
        self._given = data or {}
        sources = [*experiment.data.task_agnostic, *experiment.data.demonstrations]
        if unknown := [name for name in self._given if name not in sources]:
            raise ConfigError(f"data: no source {unknown[0]!r}; the experiment has {', '.join(sources)}")
        self.experiment = with_action_bounds(experiment, self._given)
        self._report, self._tracking = report, tracking or Tracking()
        self._force = force
        self._data: dict[str, list[Trajectories]] = {}
        self._transitions: dict[DataKind, str] = {}
        self._unchecked: list[str] = []
        self._tried = False

    def train(self, stage: str) -> Artifact:
        """The artifact of one stage: the existing one if it was made from the same inputs, else a new one.

        Raises:
            ConfigError: the experiment has no such stage.
            ArtifactError: an input stage is missing, damaged or was made for something else; or another finished stage
                would be lost.
            DataError: a data set is missing or does not fit.
            SkildError: another process works on the run, or this machine cannot hold what the stage asks for.
        """
        last = last_stage(self.experiment)
        if stage not in (*OFFLINE, last.name):
            stages = ", ".join(map(command_name, (*OFFLINE, last.name)))
            raise ConfigError(
                f"no stage {command_name(stage)!r}: this experiment has {stages}, since {last.because}; run: "
                f"{train_command(last.name)}"
            )
        with locked(run_folder(self.experiment)):
            self._unchecked = [stage]
            return self._train(stage)

    def train_all(self) -> Artifact:
        """Every stage that is needed, in order; the artifact of the last. Raises as `train`."""
        last = last_stage(self.experiment)
        stages = [*last.inputs, last.name]
        for path in self.experiment.algorithm.replayed_runs:  # before anything is trained
            open_earlier(path, self.experiment.environment, over_skills=SKILL_PRIOR.name in last.inputs)
        with locked(run_folder(self.experiment)):
            self._unchecked = [*stages]
            return [self._train(stage) for stage in stages][-1]

    def _train(self, stage: str) -> Artifact:
        inputs = self._inputs(stage)
        made_from = self._fingerprint(stage, inputs)
        finished = self._finished(stage, made_from)
        if finished:
            otherwise = differences(stage, finished.experiment, self.experiment, finished)
            note = f"; it was made with {otherwise}" if otherwise else ""
            self._report(f"{stage}: up to date, reused ({finished.path}){note}")
            self._tracking.finished(stage, made_from, finished.path)
            self._unchecked = [name for name in self._unchecked if name != stage]
            return finished
        self._check_resources()
        begun = work_folder(self.experiment, stage, made_from) / "begun"
        self._begin(stage, begun)
        if stage in OFFLINE:
            task_agnostic, demonstrations = (
                self._load(kind) if kind in OFFLINE[stage].data else [] for kind in get_args(DataKind)
            )
            artifact = train_stage(
                self.experiment, stage, task_agnostic, demonstrations, inputs, made_from, self._tracking
            )
        else:
            artifact = train_downstream(self.experiment, made_from, self.direct_data(), self._tracking)
            storage.remove(begun, CONFIG_FILE)
        self._report(f"{stage}: done ({artifact.path})")
        return artifact

    def _check_resources(self) -> None:
        """Say what the stages to come ask for and the cluster lacks, once; an error on a local Ray."""
        connect()
        offline = [stage for stage in self._unchecked if stage in OFFLINE]
        if offline:
            check(offline[0], offline_requests(self.experiment))
        if len(self._unchecked) > len(offline):
            check(self._unchecked[-1], downstream_requests(self.experiment))
        self._unchecked = []

    def _begin(self, stage: str, folder: Path) -> None:
        """Note in `folder` with which settings a stage is begun; where it was begun before, report what differs."""
        storage.fetch(folder, CONFIG_FILE, Path.is_dir)
        file = folder / CONFIG_FILE
        if file.exists():
            if otherwise := differences(stage, load_experiment(file), self.experiment):
                self._report(f"{stage}: resumed; it was begun with {otherwise}")
            return
        with writable(file):
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(to_yaml(self.experiment))
        storage.push(folder, CONFIG_FILE)

    def load_all(self) -> None:
        """Load every data set, generating those that do not exist yet."""
        for kind in get_args(DataKind):
            for name, source in zip(getattr(self.experiment.data, kind), self._load(kind), strict=True):
                self._report(f"data.{kind}.{name}: {source.num_episodes} episodes, {len(source.actions)} transitions")

    def fingerprint(self, stage: str) -> str:
        """What fixes the result of a stage; where and how fast it runs does not enter.

        Raises:
            ArtifactError: an input stage is missing, damaged or was made for something else.
        """
        return self._fingerprint(stage, self._inputs(stage))

    def _inputs(self, stage: str) -> list[Artifact]:
        return [self._input(name) for name in self._stage(stage).inputs]

    def _stage(self, name: str) -> Stage:
        return OFFLINE.get(name) or last_stage(self.experiment)

    def _input(self, stage: str) -> Artifact:
        """A finished stage, made with this experiment's settings (its seed and its run's own aside)."""
        artifact = open_artifact(run_folder(self.experiment), stage)
        changed = changed_settings(artifact.experiment, self.experiment, stage)
        changed.pop("seed", None)
        if changed:
            raise ArtifactError(
                f"{artifact.path}: was made with another {next(iter(changed))}; train it again: {train_command(stage)}"
            )
        version = problem_of(stage).version
        if artifact.record.get("stage_version") not in (None, version):
            raise ArtifactError(
                f"{artifact.path}: was made by version {artifact.record['stage_version']} of this stage, this is "
                f"{version}; train it again: {train_command(stage)}"
            )
        return artifact

    def _finished(self, stage: str, made_from: str) -> Artifact | None:
        """The stage as this experiment wants it; None where it has to be trained, or trained further.

        Raises:
            ArtifactError: it is another one, and replacing it would lose what is finished.
        """
        try:
            artifact = open_artifact(run_folder(self.experiment), stage)
        except ArtifactError as error:
            if (run_folder(self.experiment) / stage).exists():
                self._report(f"{error}; making it again")
            return None
        same = artifact.fingerprint == made_from
        budget = self.experiment.algorithm.total_env_steps
        steps = artifact.facts.get("total_env_steps", budget)  # offline stages have none
        if same and steps == budget:
            return artifact
        if not ((same and steps < budget) or self._force):
            require_replaceable(artifact, artifact.experiment, self.experiment)
        self._report(
            f"{stage}: was trained for {steps} env steps, {budget} are wanted"
            if same
            else f"{stage}: made from other settings, data or inputs, or by other code; making it again"
        )
        return None

    def _fingerprint(self, stage: str, inputs: Sequence[Artifact]) -> str:
        settings = settings_of(self.experiment, stage)
        hashes = [artifact.model_hash for artifact in inputs]
        if stage not in OFFLINE:
            del settings["algorithm"]["total_env_steps"]  # a longer run resumes from a shorter one
            version = spec_of(self.experiment.algorithm.type).load_config().version
            return fingerprint(stage, version, settings, hashes, self.direct_data())
        for kind in OFFLINE[stage].data:  # what a source holds counts, not where it comes from
            settings["data"][kind] = [
                [source.fingerprint(), entry["weight"], entry.get("negatives")]
                for source, entry in zip(self._load(kind), settings["data"][kind], strict=True)
            ]
        return fingerprint(stage, problem_of(stage).version, settings, hashes)

    def direct_data(self) -> dict[str, str]:
        """Fingerprint of all that stage 4 learns from directly: data of each kind, with their rewards, and replays.

        Raises:
            SkildError: see `load_transitions` and `PriorDataConfig.earlier_runs`.
        """
        algorithm = self.experiment.algorithm
        found: dict[str, str] = {
            kind: self._transitions_of(kind, rewards) for kind, rewards in algorithm.replayed.items()
        }
        if algorithm.replayed_runs:
            config = algorithm_config(self.experiment)
            assert isinstance(config, PriorDataConfig)
            found |= {str(run.path): run.record["sha256"][REPLAY_FILE] for run in config.earlier_runs()}
        return found

    def _transitions_of(self, kind: DataKind, rewards: Rewards) -> str:
        experiment = self.experiment
        if given := self._given.keys() & getattr(experiment.data, kind).keys():
            wanted = "a stored data set with rewards" if rewards == "with rewards" else "a stored data set"
            raise ConfigError(
                f"data.{kind}.{min(given)}: stage 4 replays its transitions, so it has to be {wanted}: "
                "skild-ray data import"
            )
        if kind not in self._transitions:
            self._try_environment()
            rows = load_transitions(
                stored_sources(experiment, kind),
                experiment.environment,
                rewards,
                successful=kind == DEMONSTRATIONS,
                remedy=experiment.algorithm.without_rewards,
            )
            self._transitions[kind] = transitions_fingerprint(rows)
        return self._transitions[kind]

    def _load(self, kind: DataKind) -> list[Trajectories]:
        if kind not in self._data:
            self._try_environment()
            self._data[kind] = load_sources(
                getattr(self.experiment.data, kind),
                self.experiment,
                kind,
                self.experiment.resources.data_workers,
                before_generating=self._check_resources,
                given=self._given,
            )
        return self._data[kind]

    def _try_environment(self) -> None:
        """Try the environment out, once: before data are made in it and stages trained for it."""
        if not self._tried:
            environment = self.experiment.environment
            with contextlib.closing(make_env(environment.id, environment.arguments)) as env:
                try_out(env, environment.id)
            self._tried = True
