"""Sweep files: what is accepted, what is drawn, and what a mistake looks like."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pretrained import tiny_experiment

from skild_ray.algorithms.skild.settings import CHANGEABLE
from skild_ray.config import to_yaml, with_values
from skild_ray.errors import ConfigError
from skild_ray.tune.sweep import Sweep, clamped, load_sweep

REPOSITORY = Path(__file__).parents[2]
ALPHA = {"algorithm.alpha": {"loguniform": [0.1, 10.0]}}


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., Sweep]:
    """Loads a sweep with these keys; `overrides` are those of the command line."""

    def load(overrides: list[str] | None = None, **content: Any) -> Sweep:
        (tmp_path / "tiny.yaml").write_text(to_yaml(tiny_experiment(tmp_path / "runs")))
        content = {"name": "s", "experiment": "tiny.yaml", "space": ALPHA} | content
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
        return load_sweep(tmp_path / "sweep.yaml", overrides or ())

    return load


def test_random_search_is_crossed_with_grids_and_seeds(sweep: Callable[..., Sweep]) -> None:
    space = ALPHA | {"skill.latent_dim": {"grid": [2, 4]}, "algorithm.n_step": {"integer": [1, 3]}}
    loaded = sweep(space=space, samples=3, seeds=[0, 1])
    drawn = loaded.configurations()
    assert drawn == loaded.configurations()
    assert len(drawn) == 3 * 2 * 2
    assert len({values["algorithm.alpha"] for values in drawn}) == 3
    assert all(0.1 <= values["algorithm.alpha"] <= 10 for values in drawn)
    assert {type(values["algorithm.n_step"]) for values in drawn} == {int}
    first = [values for values in drawn if values["algorithm.alpha"] == drawn[0]["algorithm.alpha"]]
    assert {(values["skill.latent_dim"], values["seed"]) for values in first} == {(2, 0), (2, 1), (4, 0), (4, 1)}
    assert sweep(space=space, samples=3, seeds=[0, 1], search_seed=1).configurations() != drawn


def test_overrides_go_to_the_sweep_or_to_its_experiment(sweep: Callable[..., Sweep], tmp_path: Path) -> None:
    loaded = sweep(
        ["samples=5", "algorithm.n_step=2", f"runs={tmp_path}/elsewhere", "scheduler.asha.grace_env_steps=7"],
        set={"algorithm.n_step": 4, "algorithm.batch_size": 64},
        scheduler={"asha": {"grace_env_steps": 100}},
    )
    assert loaded.samples == 5
    assert loaded.scheduler.asha is not None and loaded.scheduler.asha.grace_env_steps == 7
    assert (loaded.base.algorithm.n_step, loaded.base.algorithm.batch_size) == (2, 64)
    assert loaded.folder == tmp_path / "elsewhere" / "s"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"space": {"algorithm.alhpa": {"grid": [1]}}},
            "unknown key 'algorithm.alhpa'; the nearest is 'algorithm.alpha'",
        ),
        ({"space": {"algorithm.alpha": {"uniform": [-1, 1]}}}, "space.algorithm.alpha: 'algorithm.alpha': Input"),
        ({"space": {"algorithm.n_step": {"uniform": [1, 4]}}}, "'algorithm.n_step': Input should be a valid integer"),
        ({"space": {"algorithm.kl": {"choice": ["analytic", "exact"]}}}, "'algorithm.kl': Input should be 'analytic'"),
        ({"space": {"algorithm.alpha": {"logunform": [1, 2]}}}, "the nearest is 'space.algorithm.alpha.loguniform'"),
        (
            {"space": {"algorithm.alpha": {"loguniform": [0, 2]}}},
            "loguniform goes from a positive number to a larger one",
        ),
        ({"space": {"algorithm.alpha": {"grid": [1], "choice": [2]}}}, "give exactly one of uniform"),
        ({"space": {"name": {"grid": ["a", "b"]}}}, "space.name: not a setting"),
        ({"set": {"algorithm.n_steps": 3}}, "set: unknown key 'algorithm.n_steps'; the nearest is 'algorithm.n_step'"),
        ({"smaples": 3}, "unknown key 'smaples'; the nearest is 'samples'"),
        ({"scheduler": {"asha": {"grace_env_step": 3}}}, "the nearest is 'scheduler.asha.grace_env_steps'"),
        ({"metric": "sucess"}, "no such metric; the nearest is 'success'"),
        ({"search": "grid"}, "search is grid, but 'algorithm.alpha' has none"),
        (
            {"metric": "evaluation.success_rate", "scheduler": {"asha": {"grace_env_steps": 9}}},
            "'evaluation.success_rate' is known at a trial's end only",
        ),
        (
            {"space": {"skill.latent_dim": {"integer": [2, 4]}}, "scheduler": {"pbt": {"interval_env_steps": 9}}},
            "space.skill.latent_dim: cannot change in the course of a run",
        ),
        (
            {"set": {"algorithm.learn_alphas": True}, "scheduler": {"pbt": {"interval_env_steps": 9}}},
            "with algorithm.learn_alphas it is only where learning starts",
        ),
        (
            {"set": {"algorithm.type": "bc"}, "space": {"behavioural_cloning.hidden": {"grid": [8]}}},
            "metric: algorithm.type bc learns nothing in the environment, so there are no reports to judge trials by; "
            "choose behavioural_cloning.best_validation_loss",
        ),
        ({"experiment": "absent.yaml"}, "no such experiment file"),
    ],
)
def test_mistakes_are_one_line(sweep: Callable[..., Sweep], content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sweep(**content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_perturbable_key_exists(sweep: Callable[..., Sweep]) -> None:
    base = sweep().base
    for name in CHANGEABLE:
        with_values(base, {f"algorithm.{name}": getattr(base.algorithm, name)})


def test_a_perturbation_stays_in_its_range(sweep: Callable[..., Sweep]) -> None:
    space = sweep(space=ALPHA | {"algorithm.n_step": {"integer": [1, 4]}}).space
    assert clamped({"algorithm.alpha": 12.0, "algorithm.n_step": 5, "seed": 3}, space) == {
        "algorithm.alpha": 10.0,
        "algorithm.n_step": 4,
        "seed": 3,
    }


@pytest.mark.parametrize("path", sorted((REPOSITORY / "tune_configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_sweeps_are_valid(path: Path) -> None:
    assert load_sweep(path).name == path.stem
