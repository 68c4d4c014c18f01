"""Runs beside each other: what the table says, what the figure holds, and which mistakes are one line."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from pretrained import tiny_experiment

from skild_ray.algorithms.train import algorithm_config
from skild_ray.errors import ArtifactError, ConfigError, SkildError
from skild_ray.report.comparison import band, compare, read_method
from skild_ray.runs.artifacts import publish
from skild_ray.runs.folder import run_folder

SVG = "{http://www.w3.org/2000/svg}"
Make = Callable[..., Path]


def _result(subtasks: float, success: float, episodes: int = 100, names: str = "abcd") -> dict[str, Any]:
    both = {"episodes": episodes, "seed": 1000, "env_steps_trained": 2_000, "episode_length_mean": 50.0}
    both |= {"subtasks_mean": subtasks, "success_rate": success, "success_ci95": [0.0, 1.0]}
    both |= {"return_mean": success, "return_ci95": None}
    both |= {"subtasks": [{"name": name, "rate": success, "ci95": [0.0, 1.0]} for name in names]}
    return both | {"sampled": both | {"subtasks_mean": subtasks / 2, "success_rate": success / 2}}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Publishes a run of a seed whose curve is given as (env steps, sub-tasks solved); the folder of the run."""

    def make(
        name: str,
        curve: Sequence[tuple[float, float | None]] = ((100, 0.0), (2_000, 2.0)),
        evaluation: dict[str, Any] | None = None,
        stage: str = "demo_rl",
        seed: int = 0,
    ) -> Path:
        experiment = tiny_experiment(tmp_path, name=name, seed=seed)
        rows = [
            {"env_steps": steps} | ({} if value is None else {"subtasks_solved": value, "success": value / 4})
            for steps, value in curve
        ]
        made = {"fingerprint": "f", "data": {}, "inputs": [], "facts": {}}
        artifact = publish(experiment, stage, {"w": torch.zeros(1)}, rows, **made)  # type: ignore[arg-type]
        if evaluation:
            (artifact.path / "evaluation.json").write_text(json.dumps(evaluation))
        return run_folder(experiment)

    return make


def test_table_and_figure(make: Make, tmp_path: Path) -> None:
    initial, posterior = _result(1.0, 0.0), _result(2.0, 0.1)
    first = make("a", evaluation=_result(3.0, 0.5) | {"initial": initial, "posterior": posterior})
    second = make("b", evaluation=_result(4.0, 1.0) | {"initial": posterior}, seed=7)
    plain = make("c", evaluation=_result(0.4, 0.0), stage="rlpd")
    methods = [read_method(f"SkiLD={first},{second}"), read_method(f"RLPD={plain / 'rlpd'}")]
    before = read_method(f"Before={first},{second}", "initial")
    cloned = read_method(f"Skill BC={first}", "posterior")
    text = compare([*methods, before, cloned], tmp_path / "figure.svg")
    assert text.splitlines()[0].startswith("Sub-tasks solved over 100 episodes of evaluation seed 1000")
    assert "| SkiLD | 3.50 [3.00, 4.00] | 1.75 [1.50, 2.00] | 2,000 | 0, 7 |" in text
    assert "| RLPD | 0.40 [0.40] | 0.20 [0.20] | 2,000 | 0 | never | 0.76 | 0.00 |" in text
    # From 0 to 2 of 4 sub-tasks between 100 and 2000 env steps.
    assert "| 2,000 | 0, 7 | never, never | 0.76 |  |" in text
    assert "| Before | 1.50 [1.00, 2.00] | 0.75 [0.50, 1.00]" in text, "where training started"
    assert "| Skill BC | 2.00 [2.00] | 1.00 [1.00]" in text, "the posterior, not the policy with another sigma"
    root = ElementTree.parse(tmp_path / "figure.svg").getroot()
    assert root.tag == f"{SVG}svg"
    labels = {"".join(node.itertext()) for node in root.iter(f"{SVG}text")}
    lines = {f"{name}, {how}" for name in ("Before", "Skill BC") for how in ("deterministic", "sampled")}
    assert {"SkiLD", "RLPD", "sub-tasks solved"} | lines <= labels


def test_three_seeds_have_an_interval(make: Make, tmp_path: Path) -> None:
    different = [make(f"a{seed}", evaluation=_result(score, 0.5), seed=seed) for seed, score in enumerate((3, 4, 3.8))]
    equal = [make(f"b{seed}", evaluation=_result(4.0, 1.0), seed=seed) for seed in range(3)]
    methods = [read_method(f"{name}={','.join(map(str, runs))}") for name, runs in (("A", different), ("B", equal))]
    text = compare(methods, tmp_path / "figure.svg")
    assert "| A | 3.60 (3.00 .. 4.00) [3.00, 4.00, 3.80] |" in text
    assert "| B | 4.00 [4.00, 4.00, 4.00] |" in text, "seeds that agree say nothing about how far others may be"
    assert text.endswith("| 0.83 (0.50 .. 1.00) |"), "of the nine pairs six are better and three, with 4.00, are equal"


def test_success_where_there_is_one_subtask(make: Make, tmp_path: Path) -> None:
    run = make("a", [(500, 0.0), (1_000, 3.6), (2_000, 3.6)], _result(0.9, 0.9, names="a"))
    text = compare([read_method(f"SkiLD={run}")], tmp_path / "figure.svg")
    assert text.startswith("Success")
    assert "| SkiLD | 0.90 [0.90] | 0.45 [0.45]" in text
    assert text.endswith("| 1,000 | 0.44 |"), "alone it is better than none; 1 - (0.9 / 2 * 500 + 0.9 * 1000) / 2000"


def test_curves_of_different_steps(make: Make) -> None:
    """Both are straight lines between their own steps, so that interpolation is exact."""
    first = make("a", [(50, None), (100, 0.0), (1_000, 0.9), (2_000, 1.9)], _result(1.0, 0.1))
    second = make("b", [(300, 2.3), (1_500, 3.5)], _result(1.0, 0.1))
    steps, mean, low, high = band(read_method(f"SkiLD={first},{second}").runs, "subtasks_solved")
    assert (steps[0], steps[-1]) == (300, 1_500)
    np.testing.assert_allclose(low, steps / 1_000 - 0.1, atol=1e-9)
    np.testing.assert_allclose(high, steps / 1_000 + 2, atol=1e-9)
    np.testing.assert_allclose(mean, (low + high) / 2)


def test_mistakes_are_one_line(make: Make, tmp_path: Path) -> None:
    run, other = make("a", evaluation=_result(1.0, 0.1)), make("b", evaluation=_result(1.0, 0.1, episodes=50))
    empty, apart = make("c", [(100, None)], _result(1.0, 0.1)), make("d", [(5_000, 1.0)], _result(1.0, 0.1))
    mistakes: list[tuple[type[SkildError], str, Callable[[], object]]] = [
        (ConfigError, "NAME=RUN", lambda: read_method(str(run))),
        (ArtifactError, "no run with", lambda: read_method(f"x={tmp_path / 'absent'}")),
        (ArtifactError, "not evaluated yet", lambda: read_method(f"x={make('e')}")),
        (ArtifactError, "has no initial policy; .* evaluation.without_rl", lambda: read_method(f"x={run}", "initial")),
        (ArtifactError, "has no skill BC policy; .*: posterior", lambda: read_method(f"x={run}", "posterior")),
        (ConfigError, "evaluated over 50", lambda: compare([read_method(f"x={run},{other}")], tmp_path / "x.svg")),
        (ArtifactError, "train for longer", lambda: compare([read_method(f"x={empty}")], tmp_path / "x.svg")),
        (ArtifactError, "in common", lambda: compare([read_method(f"x={run},{apart}")], tmp_path / "x.svg")),
        (ArtifactError, "cannot write", lambda: compare([read_method(f"x={run}")], tmp_path / "no" / "x.svg")),
    ]
    for kind, message, call in mistakes:
        with pytest.raises(kind, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    make("a", evaluation=_result(1.0, 0.1), stage="imitation")
    with pytest.raises(ArtifactError, match="more than one policy"):
        read_method(f"x={run}")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("initial", "posterior")),
        ({"policy_init_scale": 0.4}, ("initial", "posterior")),
        ({"policy_init": "prior", "policy_init_scale": 0.4}, ("initial",)),
    ],
)
def test_policies_without_rl(tmp_path: Path, changes: dict[str, Any], expected: tuple[str, ...]) -> None:
    config = algorithm_config(tiny_experiment(tmp_path, algorithm=changes))
    assert tuple(config.without_rl()) == expected
