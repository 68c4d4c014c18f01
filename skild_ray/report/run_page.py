"""One self-contained page on a run: what was run, the curves of every stage, how the agent does and where it goes."""

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from skild_ray.algorithms.off_policy import EPISODE_WINDOW
from skild_ray.algorithms.registry import last_stage
from skild_ray.config import Experiment
from skild_ray.errors import ArtifactError
from skild_ray.evaluation.results import Evaluation, Summary, read_evaluation
from skild_ray.evaluation.statistics import Interval
from skild_ray.report.curves import Metrics, credit_curves, downstream_curves, offline_curves, read_metrics
from skild_ray.report.maze_section import maze_section
from skild_ray.report.page import Markup, card, document, element, folded, join, note, section, shares, table
from skild_ray.report.video_section import video_section
from skild_ray.runs import storage
from skild_ray.runs.artifacts import CONFIG_FILE, Artifact, open_artifact, require_input, stage_names, writable
from skild_ray.stages import OFFLINE, Stage, in_words

REPORT_FILE = "report.html"


def write_report(run_dir: Path) -> Path:
    """Write `run_dir/report.html` from whatever stages are finished, and return its path.

    Raises:
        ArtifactError: no stage is finished, one is damaged, or the page cannot be written.
    """
    run_dir = Path(os.path.expanduser(run_dir))
    stages = [open_artifact(run_dir, name) for name in stage_names(run_dir)]
    if not stages:
        raise ArtifactError(f"{run_dir}: no finished stage to report on; run: skild-ray pipeline EXPERIMENT")
    experiment = stages[-1].experiment
    metrics = {artifact.stage: read_metrics(artifact.path / "metrics.csv") for artifact in stages}
    evaluations = {a.stage: read_evaluation(a.path) for a in stages if a.stage not in OFFLINE}
    parts = [
        ("run", "What was run", _what_was_run(stages)),
        ("curves", "Training", _curves(stages, metrics)),
        ("evaluation", "Evaluation", _evaluation(stages, evaluations)),
        ("videos", "Videos", video_section(run_dir, stages, evaluations)),
        ("maps", "Maps", maze_section(run_dir, stages, experiment)),
    ]
    shown = [(anchor, title, content) for anchor, title, content in parts if content]
    page = document(
        f"{experiment.name} · skild_ray",
        _header(experiment, stages, metrics, evaluations, [(anchor, title) for anchor, title, _ in shown]),
        *(section(anchor, title, *content) for anchor, title, content in shown),
    )
    path, draft = run_dir / REPORT_FILE, run_dir / f".{REPORT_FILE}.draft"
    with writable(path):
        draft.write_text(page, encoding="utf-8")
        os.replace(draft, path)
    storage.push(path)
    return path


def _stage(artifact: Artifact) -> Stage:
    return OFFLINE.get(artifact.stage) or last_stage(artifact.experiment)


def _title(artifact: Artifact) -> str:
    return _stage(artifact).title


# --- header ---


def _header(
    experiment: Experiment,
    stages: Sequence[Artifact],
    metrics: Mapping[str, Metrics],
    evaluations: Mapping[str, Evaluation | None],
    links: Iterable[tuple[str, str]],
) -> Markup:
    policies_of = [_stage(artifact) for artifact in stages if artifact.stage in evaluations]
    kind = " · ".join(stage.summary for stage in policies_of) or "Offline stages only: no policy has been trained yet"
    blocks: list[Markup] = [
        element("h1", experiment.name),
        element("div", f"{kind} · {experiment.environment.id} · seed {experiment.seed}", class_="kind"),
        element("nav", *(element("a", title, href=f"#{anchor}") for anchor, title in links)),
    ]
    for artifact in stages:
        if artifact.stage in evaluations:
            if len(evaluations) > 1:
                blocks.append(element("h3", _title(artifact)))
            blocks.append(_headline(artifact, metrics[artifact.stage], evaluations[artifact.stage]))
    seconds = {artifact.stage: float(artifact.facts.get("seconds", 0.0)) for artifact in stages}
    total = _duration(sum(seconds.values()))
    titles = {artifact.stage: _title(artifact) for artifact in stages}
    parts = [(f"{titles[stage]} {_duration(value)}", value) for stage, value in seconds.items()]
    return join([*blocks, element("h3", f"Wall time {total}"), shares(parts)])


def _headline(artifact: Artifact, metrics: Metrics, evaluation: Evaluation | None) -> Markup:
    cards = []
    if evaluation:
        mean, sampled = evaluation.trained.deterministic, evaluation.trained.sampled
        for how, part in (("deterministic", mean), ("sampled", sampled)):
            interval = f"95 % CI {_percents(part.success_ci95)}"
            cards.append(card(f"Success, {how}", _percent(part.success_rate), interval))
        solved = f"95 % CI {_range(mean.subtasks_ci95, '.2f')}" if mean.subtasks else "mean an episode"
        cards.append(card("Sub-tasks solved", f"{mean.subtasks_mean:.2f}", solved))
        cards.append(card("Return", f"{mean.return_mean:.1f}", f"95 % CI {_range(mean.return_ci95, '.1f')}"))
    elif "success" in metrics:
        known = metrics["success"][np.isfinite(metrics["success"])]
        cards.append(card("Success in training", _percent(known[-1]), f"last {EPISODE_WINDOW} episodes, sampled"))
    facts = artifact.facts
    if "env_steps" in facts:
        detail = f"{facts['episodes']:,} episodes" if "episodes" in facts else ""
        cards.append(card("Env steps trained", f"{facts['env_steps']:,}", detail))
    return element("dl", *cards, class_="cards")


# --- what was run ---


def _what_was_run(stages: Sequence[Artifact]) -> list[Markup]:
    head = ("stage", "fingerprint", "seed", "trained for", "wall time", "made from", "code")
    content = [table(head, [_provenance(artifact) for artifact in stages], numeric=False)]
    finished = {artifact.stage for artifact in stages}
    missing = [OFFLINE[name].title for name in last_stage(stages[-1].experiment).inputs if name not in finished]
    if missing:
        content.append(note(f"Not finished, and left out: {', '.join(missing)}."))
    if not any(artifact.stage not in OFFLINE for artifact in stages):
        content.append(
            note("Stage 4 is not finished, so there is no policy to show: skild-ray pipeline EXPERIMENT trains it.")
        )
    for artifact in stages:
        for source in stages:
            if source.stage in artifact.record["inputs"]:
                try:
                    require_input(artifact, source)
                except ArtifactError as error:
                    content.append(note(f"Out of date: {error}", "warning"))
    for versions, where in _grouped(stages, lambda artifact: tuple(artifact.record["versions"].items())):
        listed = ", ".join(f"{package} {version}" for package, version in versions)
        content.append(note(f"Packages{_of(where, stages)}: {listed}."))
    for text, where in _grouped(stages, lambda artifact: (artifact.path / CONFIG_FILE).read_text()):
        content.append(folded(f"Resolved configuration{_of(where, stages)}", text))
    return content


def _provenance(artifact: Artifact) -> list[str]:
    record, facts = artifact.record, artifact.facts
    units = ("iterations", "env_steps", "decisions", "updates")
    amounts = [f"{facts[unit]:,} {unit.replace('_', ' ')}" for unit in units if unit in facts]
    kinds = {"task_agnostic": "task-agnostic data", "demonstrations": "demonstration data"}
    origins = [(kinds.get(name, name), prints.split(",")) for name, prints in record["data"].items()]
    origins += [(in_words(stage), [sha256[:12]]) for stage, sha256 in record["inputs"].items()]
    revision, _, dirty = (record["git_revision"] or "").partition("-")
    return [
        _title(artifact),
        element("code", record["fingerprint"]),
        str(record["seed"]),
        _lines(amounts),
        _duration(float(facts.get("seconds", 0.0))),
        _lines(join([label + " ", element("code", " ".join(prints))]) for label, prints in origins),
        join([element("code", revision[:12]), " (changed)" if dirty else ""]) if revision else "not under git",
    ]


def _grouped(stages: Sequence[Artifact], key: Callable[[Artifact], Hashable]) -> list[tuple[Any, list[str]]]:
    """Distinct values of `key` with the titles of the stages that have them."""
    groups: dict[Any, list[str]] = {}
    for artifact in stages:
        groups.setdefault(key(artifact), []).append(_title(artifact))
    return list(groups.items())


def _of(where: Sequence[str], stages: Sequence[Artifact]) -> str:
    return "" if len(where) == len(stages) else f" of {', '.join(where)}"


# --- curves and evaluation ---


def _curves(stages: Sequence[Artifact], metrics: Mapping[str, Metrics]) -> list[Markup]:
    content = [
        note(
            "Training values of offline stages are those of one batch, with the noise that the stage adds to its "
            "inputs; held-out values are without noise, on episodes that are never trained on. The dot "
            "marks the weights that were kept."
        )
    ]
    for artifact in stages:
        columns = metrics[artifact.stage]
        if not columns:
            continue
        content.append(element("h3", _title(artifact)))
        if artifact.stage not in OFFLINE:
            content.append(downstream_curves(artifact.stage, columns))
        else:
            content.append(offline_curves(artifact.stage, columns))
    return content


def _evaluation(stages: Sequence[Artifact], evaluations: Mapping[str, Evaluation | None]) -> list[Markup]:
    content: list[Markup] = []
    titles = {artifact.stage: _title(artifact) for artifact in stages}
    for stage, evaluation in evaluations.items():
        if len(evaluations) > 1:
            content.append(element("h3", titles[stage]))
        if not evaluation:
            content.append(
                note("Not evaluated yet: skild-ray pipeline EXPERIMENT plays complete episodes and adds them here.")
            )
            continue
        content.append(
            note(
                f"{evaluation.episodes} complete episodes each, seed {evaluation.seed}. Deterministic takes the mean "
                "of the policy, sampled draws from it. The initial policy is the one that training started from: what "
                "the trained one solves beyond it is what reinforcement learning added. Skill BC, behavioural cloning "
                "of skills, is the posterior with its own sigma; where training started from the posterior, the "
                "initial policy has its mean, and its sigma times policy_init_scale. Brackets are 95 % confidence "
                "intervals."
            )
        )
        parts = evaluation.labelled
        head = ("policy", "success", "", "return", "", "sub-tasks", "", "env steps an episode", "env steps trained")
        content.append(table(head, [_result_row(label, part) for label, part in parts]))
        if evaluation.trained.deterministic.subtasks:
            content += _subtasks(stage, parts)
    return content


def _subtasks(stage: str, parts: Sequence[tuple[str, Summary]]) -> list[Markup]:
    """Completion of each sub-task by each policy."""
    head = ["", *(label for label, _ in parts)]
    rows = [
        [rates[0].name, *(f"{_percent(subtask.rate)} [{_percents(subtask.ci95)}]" for subtask in rates)]
        for rates in zip(*(part.subtasks for _, part in parts), strict=True)
    ]
    means = [f"{part.subtasks_mean:.2f} [{_range(part.subtasks_ci95, '.2f')}]" for _, part in parts]
    rows.append(["mean number", *means])
    return [
        element("h4", "Sub-tasks completed, in their order"),
        table(head, rows),
        element("h4", "When they are credited"),
        credit_curves(stage, parts),
    ]


def _result_row(label: str, part: Summary) -> list[str]:
    return [
        label,
        _percent(part.success_rate),
        f"[{_percents(part.success_ci95)}]",
        f"{part.return_mean:.2f}",
        f"[{_range(part.return_ci95, '.2f')}]",
        f"{part.subtasks_mean:.2f}",
        f"[{_range(part.subtasks_ci95, '.2f')}]" if part.subtasks else "",
        f"{part.episode_length_mean:,.0f}",
        f"{part.env_steps_trained:,}",
    ]


# --- numbers ---


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _percents(shares: Interval) -> str:
    low, high = shares
    return f"{100 * low:.0f} to {100 * high:.0f} %"


def _range(bounds: Interval | None, form: str) -> str:
    if bounds is None:
        return "unknown"
    low, high = bounds
    return f"{low:{form}} to {high:{form}}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _lines(parts: Iterable[str]) -> Markup:
    return join(element("div", part) for part in parts)
