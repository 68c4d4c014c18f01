"""Benchmark files: which cells they mean, what each runs, and what a mistake looks like."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from pretrained import tiny_experiment

from skild_ray.benchmark.suite import Benchmark, load_benchmark, read_only
from skild_ray.config import to_yaml
from skild_ray.errors import ConfigError

REPOSITORY = Path(__file__).parents[2]
METHODS: dict[str, Any] = {
    "SkiLD": {"seeds": [10, 11]},
    "RLPD": {
        "set": {"algorithm": {"type": "rlpd", "n_step": 7}, "rollout.decisions_per_fragment": 8},
        "worlds": {"far": {"algorithm.n_step": 3}},
    },
    "BC": {"set": {"algorithm.type": "bc"}},
    "file": {"experiment": "{world}_other.yaml"},
    "tape": {"tapes": 2},
}
Load = Callable[..., Benchmark]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a benchmark of two worlds with these keys; `overrides` are those of the command line."""

    def load(*overrides: str, **content: Any) -> Benchmark:
        for world in ("near", "far"):
            (tmp_path / f"{world}.yaml").write_text(to_yaml(tiny_experiment(tmp_path)))
        (tmp_path / "near_other.yaml").write_text("extends: near.yaml\nalgorithm: {alpha: 0.125}\n")
        worlds = {"near": {"env_steps": 500}, "far": {"env_steps": 900}}
        content = {
            "name": "b",
            "runs": str(tmp_path / "runs"),
            "experiment": "{world}.yaml",
            "worlds": worlds,
            "methods": METHODS,
            "seeds": [10],
            "set": {"rollout": {"num_envs_per_env_runner": 2}},
        } | content
        (tmp_path / "b.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return load_benchmark(tmp_path / "b.yaml", overrides)

    return load


def test_cells_come_seed_by_seed(load: Load) -> None:
    names = [str(cell) for cell in load().cells()]
    assert names[:5] == ["near/SkiLD/10", "near/RLPD/10", "near/BC/10", "near/file/10", "near/tape/10"]
    assert names[-2:] == ["near/SkiLD/11", "far/SkiLD/11"], "a method's own seeds"
    assert len(names) == 12
    chosen = load().cells(read_only(["world=far,method=BC", "method=SkiLD,seed=10"]))
    assert [str(cell) for cell in chosen] == ["far/SkiLD/10", "far/BC/10"]


def test_what_a_cell_runs(load: Load, tmp_path: Path) -> None:
    cells = {str(cell): cell for cell in load("rollout.decisions_per_fragment=4").cells()}
    rlpd = cells["near/RLPD/10"].experiment
    assert (rlpd.algorithm.type, rlpd.algorithm.n_step, rlpd.algorithm.total_env_steps) == ("rlpd", 7, 500)
    assert (rlpd.seed, rlpd.evaluation.seed, rlpd.evaluation.episodes) == (10, 2000, 100)
    assert Path(rlpd.runs) / rlpd.name == tmp_path / "runs/b/cells/near/RLPD/10" == cells["near/RLPD/10"].folder
    assert rlpd.rollout.num_envs_per_env_runner == 2 and rlpd.rollout.decisions_per_fragment == 4, (
        "the benchmark's last"
    )
    far = cells["far/RLPD/10"].experiment
    assert (far.algorithm.n_step, far.algorithm.total_env_steps) == (3, 900)
    assert cells["far/BC/10"].experiment.algorithm.total_env_steps == 0, "learns nothing there, so it has no budget"
    assert cells["near/file/10"].experiment.algorithm.alpha == 0.125
    assert cells["near/tape/10"].tapes == 2


def test_what_decides_a_result_is_noted(load: Load) -> None:
    def settings(*overrides: str) -> list[dict[str, Any]]:
        return [cell.settings for cell in load(*overrides).cells(read_only(["world=near,seed=10,method=SkiLD"]))]

    assert settings("rollout.num_envs_per_env_runner=3", "progress.report_interval_s=9") == settings()
    for change in ("algorithm.alpha=3", "skill_prior.kl_weight=1", "episodes=7", "worlds.near.env_steps=600"):
        assert settings(change) != settings(), change
    (tape,) = load().cells(read_only(["world=near,method=tape"]))
    assert tape.settings["tapes"] == 2
    assert not [key for key in tape.settings if key.startswith(("algorithm", "skill"))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"seeds": [3]}, "'seeds': 3 is one of the seeds 0 to 9, which are for tuning"),
        ({"evaluation_seed": 1000}, "1000 is the seed of the episodes for tuning"),
        ({"seeds": [10, 10]}, "a seed is there twice"),
        ({"runs": "s3://bucket/runs"}, "a benchmark needs a folder that all nodes see"),
        ({"seed": [10]}, "unknown key 'seed'; the nearest is 'seeds'"),
        ({"set": {"seed": 3}}, "every cell has its own seed"),
        ({"methods": {"a": {"worlds": {"nowhere": {}}}}}, "no world 'nowhere'; there are near, far"),
        ({"methods": {"a b": {}}}, "should match pattern"),
        ({"worlds": {"near": {}}}, "'worlds.near.env_steps' is missing"),
    ],
)
def test_mistakes_in_the_file(load: Load, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**content)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_mistakes_in_cells(load: Load, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"far/file: .*far_other\.yaml: no such experiment file"):
        load().experiment_of("far", "file")
    with pytest.raises(ConfigError, match=r"near/SkiLD: unknown key 'algorithm\.alhpa'; the nearest is"):
        load("algorithm.alhpa=1").experiment_of("near", "SkiLD")
    with pytest.raises(ConfigError, match="no such method; there are SkiLD, RLPD"):
        load().cells({"method": ["skild"]})
    with pytest.raises(ConfigError, match="choose cells by world, method, seed"):
        load().cells({"metod": ["SkiLD"]})
    with pytest.raises(ConfigError, match="expected world=NAME"):
        read_only(["maze"])
    with pytest.raises(ConfigError, match="no such benchmark file"):
        load_benchmark(tmp_path / "absent.yaml")


def test_the_shipped_benchmark_is_valid() -> None:
    """Every world, and every method in two of them, as far as their files are there."""
    benchmark = load_benchmark(REPOSITORY / "benchmarks/learning/core.yaml")
    cells = benchmark.cells()
    assert len(benchmark.worlds) == 7 and len(benchmark.methods) == 11
    assert {len([c for c in cells if (c.world, c.method) == ("maze", name)]) for name in benchmark.methods} == {3, 5}
    pairs = {(world, "SkiLD") for world in benchmark.worlds} | set(product(("maze", "kitchen"), benchmark.methods))
    for world, name in pairs:
        file = (benchmark.methods[name].experiment or benchmark.experiment).replace("{world}", world)
        if Path(file).is_file():
            experiment = benchmark.experiment_of(world, name)
            assert experiment.algorithm.total_env_steps in (0, benchmark.worlds[world].env_steps)
