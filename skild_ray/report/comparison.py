"""Several runs beside each other: their learning curves in one figure, their final evaluations in one table."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.ticker import EngFormatter, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from skild_ray.errors import ArtifactError, ConfigError
from skild_ray.evaluation import aggregates
from skild_ray.evaluation.agent import Which
from skild_ray.evaluation.results import LABELS, Evaluation, Summary, read_evaluation
from skild_ray.evaluation.statistics import FEWEST, Interval, bootstrap_mean, in_words
from skild_ray.report.curves import Metrics, read_metrics
from skild_ray.report.figures import colour, line_styles, new_axes, to_svg
from skild_ray.report.page import standalone
from skild_ray.runs.artifacts import finished_last_stages, open_artifact, writable

FIGURE_SIZE = (6.6, 3.4)


@dataclass(frozen=True)
class FinishedRun:
    """One seed: what training logged, and the evaluation of its end."""

    path: Path
    seed: int
    metrics: Metrics
    evaluation: Evaluation


@dataclass(frozen=True)
class Method:
    """Runs of one method, a seed each, and which of their policies it is.

    'trained' is the one after RL, 'initial' the one that RL started from, 'posterior' skill behavioural cloning: the
    posterior with its own sigma.
    """

    name: str
    runs: Sequence[FinishedRun]
    which: Which = "trained"

    def summaries(self, how: str) -> list[Summary]:
        """Each run's summary of the policy, `how` is 'deterministic' or 'sampled'."""
        found = [run.evaluation.policies[self.which] for run in self.runs]
        return [policy.sampled if how == "sampled" else policy.deterministic for policy in found]


def read_method(text: str, which: Which = "trained") -> Method:
    """The finished runs of 'NAME=RUN[,RUN...]', each the folder of a run or of its last stage.

    Raises:
        ConfigError: the text has another form.
        ArtifactError: a run is not finished, not evaluated, or its evaluation lacks the policy.
    """
    name, equals, paths = text.partition("=")
    if not (name and equals and paths):
        raise ConfigError(f"{text!r}: expected NAME=RUN[,RUN...], as in SkiLD=runs/kitchen_s0,runs/kitchen_s1")
    runs = [_read_run(Path(os.path.expanduser(path))) for path in paths.split(",") if path]
    for run in runs:
        if which not in run.evaluation.policies:
            start = " with algorithm.policy_init: posterior" if which == "posterior" else ""
            raise ArtifactError(
                f"{run.path}: its evaluation has no {LABELS[which]} policy; skild-ray pipeline EXPERIMENT with "
                f"evaluation.without_rl: true adds it if the algorithm has one{start}"
            )
    return Method(name, runs, which)


def _read_run(path: Path) -> FinishedRun:
    found = finished_last_stages(path)
    if not found:
        raise ArtifactError(f"{path}: no run with a finished last stage; finish it: skild-ray pipeline EXPERIMENT")
    if len(found) > 1:
        names = " or ".join(map(str, found))
        raise ArtifactError(f"{path}: holds more than one policy; name {names}")
    artifact = open_artifact(found[0].parent, found[0].name)
    evaluation = read_evaluation(artifact.path)
    if evaluation is None:
        raise ArtifactError(f"{artifact.path}: not evaluated yet; do it: skild-ray pipeline EXPERIMENT")
    metrics = read_metrics(artifact.path / "metrics.csv")
    return FinishedRun(artifact.path, artifact.experiment.seed, metrics, evaluation)


def compare(methods: Sequence[Method], out: Path) -> str:
    """Draw the figure as an SVG file and return the table as Markdown.

    The curves are running means over the last training episodes, sampled from the policy: their mean over the seeds and
    the band between the worst and the best of them, on the env steps that all seeds of the method have.

    Raises:
        ConfigError: runs were evaluated over other episodes than the first.
        ArtifactError: curves cannot be drawn, or the file cannot be written.
    """
    runs = [run for method in methods for run in method.runs]
    conditions = [(run.evaluation.episodes, run.evaluation.seed) for run in runs]
    for run, (episodes, seed) in zip(runs, conditions, strict=True):
        if (episodes, seed) != conditions[0]:
            raise ConfigError(
                f"{run.path}: evaluated over {episodes} episodes of seed {seed}, {runs[0].path} over "
                f"{conditions[0][0]} of seed {conditions[0][1]}; evaluate all alike"
            )
    everything = [part for method in methods for how in ("deterministic", "sampled") for part in method.summaries(how)]
    # With a single sub-task, or none, success says it all.
    subtasks = any(part.subtasks_mean > part.success_rate for part in everything)
    with writable(out):
        out.write_text(_figure(methods, subtasks), encoding="utf-8")
    episodes, seed = conditions[0]
    head = (
        f"{'Sub-tasks solved' if subtasks else 'Success'} over {episodes} episodes of evaluation seed {seed}: mean of "
        f"the seeds; with {FEWEST} or more of them its 95 % bootstrap interval; in square brackets each seed. Steps to "
        "80 % of the maximum, of each seed, and the regret, the area above the curve, are those of training. A method "
        f"is better than {methods[0].name} with the probability that a run of it has the higher deterministic score."
    )
    return f"{head}\n\n{_table(methods, subtasks)}"


def band(runs: Sequence[FinishedRun], column: str) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Env steps that all runs have, and mean, minimum and maximum of a metric there, interpolated linearly."""
    curves = [_curve(run, column) for run in runs]
    try:
        return aggregates.band(curves)
    except ValueError as error:
        raise ArtifactError(f"{', '.join(str(run.path) for run in runs)}: {error}") from None


def _curve(run: FinishedRun, column: str) -> tuple[NDArray, NDArray]:
    """The env steps at which a metric is known, and its values."""
    values = run.metrics.get(column, np.empty(0))
    known = np.isfinite(values)
    if not known.any():
        raise ArtifactError(f"{run.path}: its metrics have no {column!r} to draw; train for longer")
    return run.metrics["env_steps"][known], values[known]


def _figure(methods: Sequence[Method], subtasks: bool) -> str:
    drawing, axes = new_axes(*FIGURE_SIZE)
    for method, (ink, dashes) in zip(methods, line_styles(len(methods)), strict=True):
        if _has_curve(method):
            steps, mean, low, high = band(method.runs, "subtasks_solved" if subtasks else "success")
            axes.fill_between(steps, low, high, color=ink, alpha=0.16, linewidth=0)
            axes.plot(steps, mean, color=ink, linewidth=1.6, linestyle=dashes, label=method.name)
            continue
        for how, line in (("deterministic", "dashed"), ("sampled", "dotted")):
            height = float(np.mean(_scores(method, how, subtasks)))
            axes.axhline(height, color=ink, linewidth=1.2, linestyle=line, label=f"{method.name}, {how}")
    axes.set_xlabel("env steps")
    axes.set_ylabel("sub-tasks solved" if subtasks else "success")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.margins(x=0.01)
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8, labelcolor=colour("--ink"))
    return standalone(to_svg(drawing, "compare", "Learning curves: " + ", ".join(method.name for method in methods)))


def _table(methods: Sequence[Method], subtasks: bool) -> str:
    names = ["policy", "deterministic", "sampled", "env steps", "seeds", "steps to 80 %", "regret"]
    names += [f"better than {methods[0].name}"] if len(methods) > 1 else []
    rows = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    reference = [np.array(_scores(methods[0], "deterministic", subtasks))]
    for method in methods:
        cells = [method.name, *(over_seeds(_scores(method, how, subtasks)) for how in ("deterministic", "sampled"))]
        steps = [part.env_steps_trained for part in method.summaries("deterministic")]
        cells.append(f"{min(steps):,}" if min(steps) == max(steps) else f"{min(steps):,} .. {max(steps):,}")
        cells.append(", ".join(str(run.seed) for run in method.runs))
        cells += _speed(method, subtasks)
        if len(methods) > 1:
            own = [np.array(_scores(method, "deterministic", subtasks))]
            cells.append("" if method is methods[0] else better(own, reference))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _speed(method: Method, subtasks: bool) -> list[str]:
    """Of each seed the env steps to 80 % of the maximum, and the mean regret; empty where nothing was learned."""
    if not _has_curve(method):
        return ["", ""]
    maximum = max(len(part.subtasks) for part in method.summaries("deterministic")) if subtasks else 1
    curves = [_curve(run, "subtasks_solved" if subtasks else "success") for run in method.runs]
    shares = [(steps, values / max(1, maximum)) for steps, values in curves]
    return [", ".join(map(reached, shares)), f"{np.mean([aggregates.regret(*share) for share in shares]):.2f}"]


def _has_curve(method: Method) -> bool:
    """Whether it is a policy that has been trained in the environment."""
    return method.which == "trained" and any(part.env_steps_trained for part in method.summaries("deterministic"))


def reached(curve: tuple[ArrayLike, ArrayLike]) -> str:
    """Env steps after which a learning curve reaches 80 %."""
    steps = aggregates.steps_to(*curve)
    return "never" if steps is None else f"{steps:,}"


def better(first: aggregates.Runs, second: aggregates.Runs) -> str:
    """Probability that a run of the first method is better than one of the second: '0.89 (0.67 .. 1.00)'."""
    probability = float(aggregates.probability_of_improvement(first, second))
    return with_interval(probability, aggregates.improvement_interval(first, second))


def with_interval(number: float, interval: Interval | None) -> str:
    """'0.97 (0.92 .. 0.99)', without an interval where the scores cannot tell one."""
    return f"{number:.2f}" if interval is None else in_words(number, interval)


def over_seeds(scores: Sequence[float]) -> str:
    """'3.98 (3.96 .. 3.99) [3.99, 3.98, 3.96]'."""
    shown = with_interval(float(np.mean(scores)), bootstrap_mean(scores))
    return f"{shown} [{', '.join(f'{score:.2f}' for score in scores)}]"


def _scores(method: Method, how: str, subtasks: bool) -> list[float]:
    return [part.subtasks_mean if subtasks else part.success_rate for part in method.summaries(how)]
