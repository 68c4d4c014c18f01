"""What a sweep is said to have found: how configurations rank where trials failed, and what the winner is run with."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import yaml
from pretrained import publish_pretrained, tiny_experiment
from ray.tune import Result

from skild_ray.algorithms.train import algorithm_config
from skild_ray.config import load_experiment, to_yaml
from skild_ray.evaluation.agent import load_agent
from skild_ray.evaluation.rollouts import play, summarise
from skild_ray.runs.artifacts import publish
from skild_ray.runs.folder import run_folder
from skild_ray.tune.offline import trial_folder
from skild_ray.tune.results import (
    FINISHED,
    STOPPED,
    UNFINISHED,
    Outcome,
    configurations,
    outcomes,
    show,
    write_best,
)
from skild_ray.tune.sweep import Sweep, load_sweep
from skild_ray.tune.sweep_page import write_page
from skild_ray.tune.trial import RESULT_FILE, selection_seed, selection_summary

DIVERGED = "critic_loss is not finite at 9 env steps"
Seeds = Mapping[int, float | str | None]
"""What became of each seed of a configuration: its score, STOPPED, UNFINISHED, or why it failed; None: no trial yet."""


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., Sweep]:
    """A sweep over alpha with three seeds."""

    def load(**content: object) -> Sweep:
        (tmp_path / "tiny.yaml").write_text(to_yaml(tiny_experiment(tmp_path / "runs")))
        space = {"algorithm.alpha": {"grid": [1.0, 2.0, 3.0, 4.0]}}
        content = {"name": "s", "experiment": "tiny.yaml", "space": space, "seeds": [0, 1, 2]} | content
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
        loaded = load_sweep(tmp_path / "sweep.yaml")
        loaded.folder.mkdir(parents=True, exist_ok=True)
        return loaded

    return load


def trials(alpha: float, seeds: Seeds) -> list[Outcome]:
    """A configuration's; those that were stopped or not finished had 0.5 so far, those that failed nothing."""
    made = []
    for seed, became in seeds.items():
        if became is None:
            continue
        score = became if isinstance(became, float) else 0.5 if became in (STOPPED, UNFINISHED) else math.nan
        ended = became if isinstance(became, str) else FINISHED
        made.append(Outcome(f"{alpha:g}_{seed}", {"algorithm.alpha": alpha, "seed": seed}, score, 1_000, ended))
    return made


def ranking(sweep: Sweep, *seeds: Seeds) -> list[Outcome]:
    """Trials of configurations with the alphas 1, 2, ..., best first."""
    found = [trial for alpha, own in enumerate(seeds, 1) for trial in trials(float(alpha), own)]
    return [trial for configuration in configurations(sweep, found) for trial in configuration.trials]


def order(sweep: Sweep, *seeds: Seeds) -> list[float]:
    return list(dict.fromkeys(trial.values["algorithm.alpha"] for trial in ranking(sweep, *seeds)))


LUCKY: Seeds = {0: 0.95, 1: DIVERGED, 2: DIVERGED}
SOLID: Seeds = {0: 0.9, 1: 0.9, 2: 0.8}


def test_a_seed_that_survives_does_not_win(sweep: Callable[..., Sweep]) -> None:
    assert order(sweep(), LUCKY, SOLID) == [2, 1]
    worst: Seeds = {0: 0.1, 1: 0.1, 2: 0.1}
    assert order(sweep(), LUCKY, worst) == [2, 1], "however little the others solve"
    twice: Seeds = {0: 0.2, 1: 0.2, 2: DIVERGED}
    assert order(sweep(), LUCKY, twice) == [2, 1], "of those with failures, the one with more finished seeds"
    assert order(sweep(), LUCKY, {0: DIVERGED, 1: DIVERGED, 2: 0.96}) == [2, 1], "then by their score"
    assert order(sweep(), {0: DIVERGED, 1: DIVERGED, 2: DIVERGED}, LUCKY) == [2, 1]


def test_a_loss_has_no_worst_score_to_count_with(sweep: Callable[..., Sweep]) -> None:
    loss = sweep(metric="skill_prior.best_validation_loss", mode="min")
    assert order(loss, {0: 1e-3, 1: DIVERGED, 2: 1e-3}, {0: 1e6, 1: 1e6, 2: 1e6}) == [2, 1]
    assert order(loss, {0: 0.2, 1: 0.2, 2: 0.2}, {0: 0.1, 1: 0.1, 2: 0.2}) == [2, 1]


def test_stopped_and_missing_are_no_failures(sweep: Callable[..., Sweep]) -> None:
    stopped: Seeds = {0: STOPPED, 1: STOPPED, 2: 0.6}
    open_, absent = {0: 0.99, 1: UNFINISHED, 2: 0.99}, {0: 0.98, 1: 0.98, 2: None}
    assert order(sweep(), LUCKY, absent, open_, stopped) == [4, 2, 3, 1]
    found = [*trials(1.0, LUCKY), *trials(2.0, absent), *trials(3.0, open_), *trials(4.0, stopped), *trials(5.0, SOLID)]
    assert [str(configuration) for configuration in configurations(sweep(), found)] == [
        "0.8667 (0.8 .. 0.9)",
        "0.5333 (0.5 .. 0.6); 2 of 3 seeds stopped early",
        "0.98; 1 of 3 seeds unfinished",
        "0.8267 (0.5 .. 0.99); 1 of 3 seeds unfinished",
        f"0.95; 2 of 3 seeds failed: {DIVERGED}",
    ]


def test_how_trials_end(sweep: Callable[..., Sweep]) -> None:
    """A score that is not finite is a failure, whatever Tune calls it; a trial whose sweep was stopped is none."""
    loaded = sweep(seeds=[0])
    reports: dict[str, dict[str, object]] = {
        "finished": {"success": 0.5, "done": True},
        "nan": {"success": math.nan, "done": True},
        "stopped": {"success": 0.4, "done": True},
        "open": {"success": 0.9, "done": False},
        "silent": {},
    }
    for name in ("finished", "nan"):
        folder = trial_folder(loaded.folder, name)
        folder.mkdir(parents=True)
        (folder / RESULT_FILE).touch()
    grid = [
        Result(checkpoint=None, error=None, path=f"/{name}", metrics={**report, "config": {"seed": 0, "name": name}})
        for name, report in reports.items()
    ]
    ended = {outcome.trial: (outcome.ended, outcome.failed) for outcome in outcomes(loaded, grid)}  # type: ignore[arg-type]
    assert ended == {
        "finished": (FINISHED, False),
        "stopped": (STOPPED, False),
        "open": (UNFINISHED, False),
        "nan": ("success is nan", True),
        "silent": (UNFINISHED, False),
    }
    assert list(ended)[:3] == ["finished", "stopped", "open"]


def test_table_and_page_say_what_failed(sweep: Callable[..., Sweep], capsys: pytest.CaptureFixture[str]) -> None:
    loaded = sweep()
    best_first = ranking(loaded, LUCKY, SOLID)
    show(loaded, best_first)
    assert "2 of 3 seeds failed" in capsys.readouterr().out
    page = write_page(loaded, best_first).read_text()
    assert f"2 of 3 seeds failed: {DIVERGED}" in page
    assert "Best: trial 2_0, success 0.8667 (0.8 .. 0.9)" in page
    assert "6 trials" in page and "2 failed" in page


def test_the_best_is_run_with_a_seed_that_it_was_not_chosen_on(sweep: Callable[..., Sweep]) -> None:
    loaded = sweep()
    path = write_best(loaded, ranking(loaded, LUCKY, SOLID))
    assert path is not None
    best = load_experiment(path)
    assert (best.algorithm.alpha, best.seed) == (2.0, 3)
    assert best.evaluation == loaded.base.evaluation
    says = path.read_text()
    assert "# Sweep s: success 0.8667 (0.8 .. 0.9).\n# Chosen on the training seeds 0, 1, 2 (trials 2_0, 2_1" in says
    path = write_best(loaded, ranking(loaded, LUCKY))
    assert path is not None and f"2 of 3 seeds failed: {DIVERGED}" in path.read_text()
    assert write_best(loaded, ranking(loaded, dict.fromkeys(range(3), DIVERGED))) is None
    assert write_best(loaded, []) is None


def test_trials_are_compared_on_other_episodes_than_the_best_is_reported_on(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path, evaluation={"episodes": 20, "seed": 7})
    stages = publish_pretrained(experiment).artifacts
    weights = algorithm_config(experiment).build_module().state_dict()
    made = {"fingerprint": "untrained", "data": {}, "inputs": stages, "facts": {"env_steps": 10}}
    publish(experiment, "demo_rl", weights, [{"env_steps": 10.0}], **made)  # type: ignore[arg-type]
    agent = load_agent(run_folder(experiment))
    chosen_on, reported_on = (play(agent, 20, seed, deterministic=True) for seed in (selection_seed(7), 7))
    assert {episode.seed for episode in chosen_on}.isdisjoint(episode.seed for episode in reported_on)
    assert selection_summary(agent, experiment.evaluation) == summarise(chosen_on, 10, selection_seed(7))


def test_seeds_of_selection_do_not_meet_those_of_reports() -> None:
    seeds = [0, 1, 7, 1_000, 2_000]
    reported, chosen_on = (
        [np.random.SeedSequence(seed).generate_state(100).tolist() for seed in several]
        for several in (seeds, map(selection_seed, seeds))
    )
    assert len({episode for group in (*reported, *chosen_on) for episode in group}) == 2 * len(seeds) * 100
