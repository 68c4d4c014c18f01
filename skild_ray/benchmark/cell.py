"""What the process of a cell does: train its policy, evaluate it, keep the result."""

import shutil

from ray.tune import PlacementGroupFactory

from skild_ray.algorithms.registry import last_stage
from skild_ray.algorithms.train import placement
from skild_ray.benchmark.results import CellResult, Curve, write_cell
from skild_ray.benchmark.suite import Cell
from skild_ray.evaluation.evaluate import evaluate_run
from skild_ray.evaluation.results import Summary
from skild_ray.evaluation.tape import replay_tapes
from skild_ray.pipeline import Run
from skild_ray.report.curves import read_metrics
from skild_ray.runs.folder import WORK_FOLDER
from skild_ray.tracking.files import TABLE_FILE


def run_cell(cell: Cell) -> CellResult:
    """Train stage 4 of a cell whose offline stages are in its folder, and evaluate the policy as training leaves it.

    Resumes from its last checkpoint, as every run does; the result is kept in the cell's folder.

    Raises:
        SkildError: see `Run.train`.
    """
    return _replayed(cell, cell.tapes) if cell.tapes else _trained(cell)


def _trained(cell: Cell) -> CellResult:
    experiment = cell.experiment
    # What is there without a result is of no use to anybody else.
    artifact = Run(experiment, force=True).train(last_stage(experiment).name)
    settings = experiment.evaluation
    evaluation = evaluate_run(artifact.path, settings.episodes, settings.seed, without_rl=False)
    deterministic, sampled = evaluation.trained.deterministic, evaluation.trained.sampled
    result = CellResult(
        world=cell.world,
        method=cell.method,
        seed=cell.seed,
        env_steps=deterministic.env_steps_trained,
        score_deterministic=score_of(deterministic),
        score_sampled=score_of(sampled),
        success_deterministic=deterministic.success_rate,
        success_sampled=sampled.success_rate,
        episodes=settings.episodes,
        evaluation_seed=settings.seed,
        curve=Curve.of(read_metrics(artifact.path / TABLE_FILE), len(deterministic.subtasks)),
    )
    write_cell(cell, result, evaluation.to_json())
    shutil.rmtree(cell.folder / WORK_FOLDER, ignore_errors=True)  # checkpoints, with their replay: it is final
    return result


def score_of(summary: Summary) -> float:
    """Share of the sub-tasks that an episode solves; success where there is one, or none."""
    return summary.subtasks_mean / len(summary.subtasks) if summary.subtasks else summary.success_rate


def _replayed(cell: Cell, tapes: int) -> CellResult:
    settings = cell.experiment.evaluation
    replays = replay_tapes(cell.experiment, tapes, settings.episodes)
    result = CellResult(
        world=cell.world,
        method=cell.method,
        seed=cell.seed,
        env_steps=0,
        score_deterministic=float(replays.scores.mean() / replays.maximum),
        score_sampled=None,
        success_deterministic=float((replays.scores == replays.maximum).mean()),
        success_sampled=None,
        episodes=settings.episodes,
        evaluation_seed=settings.seed,
        curve=Curve(),
    )
    write_cell(cell, result, {"scores": replays.scores.tolist(), "maximum": replays.maximum})
    return result


def cell_resources(cell: Cell) -> PlacementGroupFactory:
    """One group for all processes of a cell: it starts when all have their place, or waits."""
    if cell.tapes or not cell.experiment.algorithm.total_env_steps:
        return PlacementGroupFactory([{"CPU": 1}])
    return placement(cell.experiment)
