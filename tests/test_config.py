"""Experiment files: merging, validation, messages."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from skild_ray.algorithms.registry import last_stage
from skild_ray.algorithms.rlpd.settings import RLPDSettings
from skild_ray.algorithms.skild.reference_settings import Quirk, ReferenceSettings
from skild_ray.algorithms.skild.settings import SkiLDSettings
from skild_ray.config import Experiment, load_experiment, to_yaml
from skild_ray.errors import ConfigError
from skild_ray.runs.fingerprint import fingerprint
from skild_ray.runs.folder import run_folder
from skild_ray.stages import DEMO_RL, IMITATION

EXPERIMENTS = sorted((Path(__file__).parents[1] / "experiments").rglob("*.yaml"))
MINIMAL: dict[str, Any] = {
    "name": "tiny",
    "environment": {"id": "skild_ray/Maze-v0"},
    "data": {"task_agnostic": {"play": {"dataset": "a"}}, "demonstrations": {"human": {"dataset": "b"}}},
}


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write(content: Any, name: str = "tiny.yaml") -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return path

    return write


def _error(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_experiment(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.exit_code == 2
    return message


def _with(key: str, value: Any) -> dict[str, Any]:
    """MINIMAL with `a.b` set."""
    content = yaml.safe_load(yaml.safe_dump(MINIMAL))
    *parents, last = key.split(".")
    section = content
    for parent in parents:
        section = section[int(parent)] if isinstance(section, list) else section.setdefault(parent, {})
    section[last] = value
    return content


@pytest.mark.parametrize("path", EXPERIMENTS, ids=[path.stem for path in EXPERIMENTS])
def test_shipped_experiments_load(path: Path) -> None:
    experiment = load_experiment(path)
    assert experiment.name == path.stem


def test_there_are_shipped_experiments() -> None:
    assert {"maze", "maze_imitation", "kitchen_teleop"} <= {path.stem for path in EXPERIMENTS}


def test_imitation_is_the_absence_of_the_environments_reward() -> None:
    by_name = {path.stem: load_experiment(path) for path in EXPERIMENTS}
    assert last_stage(by_name["maze_imitation"]) is IMITATION
    assert last_stage(by_name["maze"]) is DEMO_RL
    assert by_name["maze_imitation"].data == by_name["maze"].data


@pytest.mark.parametrize("world", ["maze", "kitchen", "ogbench_scene4"])
def test_published_methods(world: str) -> None:
    by_name = {path.stem: load_experiment(path) for path in EXPERIMENTS}
    skild, spirl = (by_name[f"{world}_{method}_published"].algorithm for method in ("skild", "spirl"))
    for settings in (skild, spirl):
        assert isinstance(settings, ReferenceSettings) and settings.reference_quirks == []
        assert settings.kl_in_target and settings.n_step == 1 and settings.discriminator_rate == 0
        assert settings.total_env_steps == by_name[world].algorithm.total_env_steps
    assert skild.learn_alphas == (world != "kitchen") and skild.guidance == "support"
    assert spirl.learn_alphas and (spirl.guidance, spirl.policy_init, spirl.env_reward_weight) == ("prior", "prior", 1)


def test_round_trip(write) -> None:  # type: ignore[no-untyped-def]
    for path in [*EXPERIMENTS, write(_with("algorithm.type", "skild_reference"))]:
        experiment = load_experiment(path)
        assert load_experiment(write(to_yaml(experiment), "again.yaml")) == experiment


def test_defaults_are_valid(write) -> None:  # type: ignore[no-untyped-def]
    experiment = load_experiment(write(MINIMAL))
    assert Experiment.model_validate(experiment.model_dump()) == experiment
    assert run_folder(experiment) == Path("runs/tiny")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("algorithm.alfa", 1, "unknown key 'algorithm.alfa'; the nearest is 'algorithm.alpha'"),
        ("skill_prior.iteration", 1, "unknown key 'skill_prior.iteration'; the nearest is 'skill_prior.iterations'"),
        ("rolout", {}, "unknown key 'rolout'; the nearest is 'rollout'"),
        ("rollout.skill_steps_per_fragment", 8, "is now written 'rollout.decisions_per_fragment'"),
        ("data.task_agnostic.play.wieght", 2, "the nearest is 'data.task_agnostic.play.weight'"),
        (
            "data.task_agnostic.a-b",
            {"generate": {"expert": "m", "episode": 1}},
            "data.task_agnostic.a-b.generate.episodes",
        ),
        ("algorithm.batch_size", "many", "'algorithm.batch_size': Input should be a valid integer"),
        ("algorithm.discount", 1.5, "'algorithm.discount': Input should be less than or equal to 1, got 1.5"),
        ("algorithm.total_env_steps", 0, "'algorithm.total_env_steps': Input should be greater than 0, got 0"),
        ("algorithm.latent_squash", "relu", "'algorithm.latent_squash'"),
        (
            "algorithm",
            {"type": "skild_reference", "reference_quirks": ["squashed_decoder", "x"]},
            "reference_quirks.1'",
        ),
        ("algorithm.reference_quirks", True, "is now written 'algorithm: {type: skild_reference}'"),
        ("algorithm.type", "rlp", "unknown algorithm 'rlp'; the nearest is 'rlpd'"),
        ("algorithm.type", "no_such_package:SPEC", "cannot import 'no_such_package'"),
        ("algorithm.type", "skild_ray.errors:SPEC", "has no AlgorithmSpec 'SPEC'"),
        ("algorithm.critic_lr", float("nan"), "'algorithm.critic_lr'"),
        ("skill.decoder_norm", "group", "'skill.decoder_norm'"),
        ("data.demonstrations", [], "'data.demonstrations': give at least one source"),
        ("data.demonstrations", {}, "'data.demonstrations': give at least one source"),
        ("data.demonstrations", "human", "'data.demonstrations': Input should be a valid dictionary, got 'human'"),
        ("data.demonstrations", [{}], "'data.demonstrations.0': a new source needs 'dataset' or 'generate'"),
        ("data.demonstrations", [{"dataset": "b", "wieght": 2}], "the nearest is 'data.demonstrations.0.weight'"),
        (
            "data.demonstrations.by hand",
            {"dataset": "b"},
            "'data.demonstrations': 'by hand' is not a valid source name",
        ),
        (
            "data.demonstrations",
            {0: {"dataset": "b"}},
            "0 is not a valid source name: use letters, digits, _ and -, in",
        ),
        ("name", "../elsewhere", "'name'"),
        ("environment", {"kwargs": {}}, "'environment.id' is missing"),
        ("algorithm", {"discriminator_reward_min": 1.0, "discriminator_reward_max": 0.0}, "must be below"),
    ],
)
def test_wrong_values_are_named(write, key: str, value: Any, expected: str) -> None:  # type: ignore[no-untyped-def]
    path = write(_with(key, value))
    message = _error(path)
    assert message.startswith(f"{path}: ")
    assert expected in message


def test_a_source_is_a_data_set_or_generated(write) -> None:  # type: ignore[no-untyped-def]
    both = {"dataset": "a", "generate": {"expert": "maze", "episodes": 1}}
    assert "'data.task_agnostic.play': give exactly one" in _error(write(_with("data.task_agnostic.play", both)))


def test_the_discriminator_needs_negatives(write) -> None:  # type: ignore[no-untyped-def]
    repetitions = {"dataset": "a", "negatives": False}
    message = _error(write(_with("data.task_agnostic", {"one": repetitions, "other": repetitions})))
    assert "'data.task_agnostic': one source at least must have 'negatives: true'" in message
    assert load_experiment(write(_with("data.task_agnostic", {"one": repetitions, "other": {"dataset": "b"}})))


def test_repetitions_of_demonstrations_are_no_negatives() -> None:
    sources = [source for path in EXPERIMENTS for source in load_experiment(path).data.task_agnostic.values()]
    repeating = [source for source in sources if source.generate and source.generate.expert == "kitchen_tracker"]
    assert repeating and not any(source.negatives for source in repeating)


@pytest.mark.parametrize("content", ["- 1\n- 2\n", "just text", "a: [1, 2", "a: 1\na: 2\n", "name: ${nowhere}\n", ""])
def test_files_that_are_no_experiment(write, content: str) -> None:  # type: ignore[no-untyped-def]
    path = write(content)
    assert str(path) in _error(path)


def test_a_binary_file_is_no_experiment(tmp_path: Path) -> None:
    path = tmp_path / "weights.yaml"
    path.write_bytes(b"\xff\xfe\x00\x80")
    assert str(path) in _error(path)


def test_missing_file(tmp_path: Path) -> None:
    assert "no such experiment file" in _error(tmp_path / "absent.yaml")


def test_extends_chain(write) -> None:  # type: ignore[no-untyped-def]
    write(MINIMAL | {"algorithm": {"alpha": 1.0, "alpha_q": 1.0, "n_step": 3}}, "base.yaml")
    write({"extends": "base.yaml", "name": "middle", "algorithm": {"alpha": 2.0, "alpha_q": 2.0}}, "middle.yaml")
    experiment = load_experiment(write({"extends": "middle.yaml", "algorithm": {"alpha": 3.0}}, "last.yaml"))
    algorithm = experiment.algorithm
    assert (experiment.name, algorithm.alpha, algorithm.alpha_q, algorithm.n_step) == ("middle", 3.0, 2.0, 3)


THREE = {"play": {"dataset": "a", "weight": 3.0}, "old": {"dataset": "b"}, "demos": {"dataset": "c"}}


def _extended(write: Any, base: Any, sources: Any) -> dict[str, tuple[str | None, float]]:
    """Data set and weight of the task-agnostic sources `sources`, in a file that extends one with `base`."""
    write(_with("data.task_agnostic", base), "base.yaml")
    path = write({"extends": "base.yaml", "data": {"task_agnostic": sources}})
    found = load_experiment(path).data.task_agnostic
    return {name: (source.dataset, source.weight) for name, source in found.items()}


def test_sources_are_merged_by_name(write) -> None:  # type: ignore[no-untyped-def]
    merged = _extended(write, THREE, {"new": {"dataset": "d"}, "old": None, "play": {"weight": 2.0}})
    assert list(merged.items()) == [("play", ("a", 2.0)), ("demos", ("c", 1.0)), ("new", ("d", 1.0))], "base's order"
    generated = {"generate": {"expert": "maze", "episodes": 1}}
    assert _extended(write, THREE, {"play": {"dataset": None, **generated}})["play"] == (None, 3.0)
    for sources, expected in (
        (dict.fromkeys(THREE), r"'data\.task_agnostic': give at least one source"),
        ({"paly": {"weight": 2.0}}, r"'data\.task_agnostic\.paly': a new source needs 'dataset' or"),
        ({"play": generated}, r"'data\.task_agnostic\.play': .*; if one is inherited, set it to null"),
    ):
        with pytest.raises(ConfigError, match=expected):
            _extended(write, THREE, sources)


def test_a_list_of_sources_replaces_and_names_them_by_number(write) -> None:  # type: ignore[no-untyped-def]
    entries = list(THREE.values())
    numbered = {"0": ("a", 3.0), "1": ("b", 1.0), "2": ("c", 1.0)}
    assert _extended(write, THREE, entries) == _extended(write, entries[:1], entries) == numbered
    changed = _extended(write, entries, {"0": {"weight": 2.0}, "1": None, "new": {"dataset": "d"}})
    assert list(changed.items()) == [("0", ("a", 2.0)), ("2", ("c", 1.0)), ("new", ("d", 1.0))]


def test_extends_is_relative_to_its_file(tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    write(MINIMAL, "base.yaml")
    (tmp_path / "sub").mkdir()
    path = write({"extends": "../base.yaml", "seed": 3}, "sub/child.yaml")
    assert load_experiment(path).seed == 3


def test_extends_circle(write) -> None:  # type: ignore[no-untyped-def]
    write({"extends": "b.yaml"}, "a.yaml")
    write({"extends": "a.yaml"}, "b.yaml")
    assert "circle" in _error(write({"extends": "a.yaml"}, "c.yaml"))


def test_extends_something_absent(write) -> None:  # type: ignore[no-untyped-def]
    assert "absent.yaml: no such experiment file" in _error(write({"extends": "absent.yaml"}))


def test_extends_with_another_shape(write) -> None:  # type: ignore[no-untyped-def]
    write(MINIMAL, "base.yaml")
    _error(write({"extends": "base.yaml", "data": [1, 2]}, "child.yaml"))


def test_overrides(write) -> None:  # type: ignore[no-untyped-def]
    overrides = [
        "algorithm.alpha=0.5",
        "algorithm.critic_lr=1e-3",
        "algorithm.kl_clamp=null",
        "algorithm.synchronous=true",
        "environment.kwargs.max_episode_steps=7",
        "data.task_agnostic.play.weight=2",
        "data.task_agnostic.007={dataset: b}",
        "data.task_agnostic.more={dataset: c}",
        "data.task_agnostic.more=null",
        "data.task_agnostic.007.dataset=1.10",
        "data.demonstrations.human={max_episodes: 9}",
        "name=other",
        "seed=3",
        "seed=4",
    ]
    experiment = load_experiment(write(_with("algorithm.kl_clamp", 5.0)), overrides)
    algorithm = experiment.algorithm
    assert (algorithm.alpha, algorithm.critic_lr, algorithm.kl_clamp, algorithm.synchronous) == (0.5, 1e-3, None, True)
    assert experiment.environment.kwargs == {"max_episode_steps": 7}
    assert list(experiment.data.task_agnostic) == ["play", "007"]
    assert experiment.data.task_agnostic["play"].weight == 2
    assert experiment.data.task_agnostic["007"].dataset == "1.10"
    assert experiment.data.demonstrations["human"].dataset == "b", "a mapping is merged over what is there"
    assert (experiment.name, experiment.seed) == ("other", 4), "the last one counts"


@pytest.mark.parametrize("text", ["2026-11-28", "1", "1.10", "007", "1_000", "on", "1e3"])
def test_a_number_or_date_is_text_where_text_belongs(write, text: str) -> None:  # type: ignore[no-untyped-def]
    tracking = {"mlflow": {}, "wandb": {"tags": ["a", "b"]}}
    overrides = [f"{key}={text}" for key in ("name", "tracking.mlflow.experiment", "tracking.wandb.tags.1")]
    experiment = load_experiment(write(MINIMAL | {"tracking": tracking}), overrides)
    mlflow, wandb = experiment.tracking.mlflow, experiment.tracking.wandb
    assert mlflow and wandb
    assert (experiment.name, mlflow.experiment, wandb.tags) == (text, text, ["a", text])


def test_a_number_or_date_as_a_name_in_a_file(tmp_path: Path) -> None:
    rest = yaml.safe_dump({key: value for key, value in MINIMAL.items() if key != "name"})
    path = tmp_path / "dated.yaml"
    path.write_text(f"name: 2026-11-28\n{rest}")
    assert load_experiment(path).name == "2026-11-28"
    path.write_text(f"name: 1.10\n{rest}")
    assert "'name': Input should be a valid string, got 1.1; put it in quotes" in _error(path)


def test_a_name_fits_into_a_file_system(write) -> None:  # type: ignore[no-untyped-def]
    message = _error(write(MINIMAL), f"name={'a' * 300}")
    assert "'name': String should have at most 128 characters" in message
    assert len(message) < 400


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("HOME", str(tmp_path))
    write(_with("data.task_agnostic.play.dataset", "~/a.h5") | {"runs": "~/runs"})
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "child.yaml").write_text("extends: ~/tiny.yaml\n")
    experiment = load_experiment("~/sub/child.yaml")
    assert run_folder(experiment) == tmp_path / "runs" / experiment.name
    assert experiment.data.task_agnostic["play"].dataset == f"{tmp_path}/a.h5"
    assert load_experiment("~/sub/child.yaml", ["runs=~/elsewhere"]).runs == f"{tmp_path}/elsewhere"
    assert load_experiment("~/sub/child.yaml", ["runs=s3://bucket/~/runs"]).runs == "s3://bucket/~/runs"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("algorithm.alpha", "expected key=value"),
        ("=3", "expected key=value"),
        ("algorithm.alpha=[1", "not valid YAML"),
        ("algorithm.alpa=1", "the nearest is 'algorithm.alpha'"),
        ("algorithm.alpha=-1", "'algorithm.alpha'"),
        ("algorithm=3", "'algorithm'"),
        ("data.task_agnostic.paly.weight=2", "'data.task_agnostic.paly': a new source needs 'dataset' or 'generate'"),
        ("data.task_agnostic.weight=2", "'data.task_agnostic.weight': Input should be a valid dictionary"),
        ("data.task_agnostic.play=null", "'data.task_agnostic': give at least one source"),
        ("name=${nowhere}", "nowhere"),
    ],
)
def test_wrong_overrides(write, override: str, expected: str) -> None:  # type: ignore[no-untyped-def]
    assert expected in _error(write(MINIMAL), override)


def test_overrides_of_a_list_of_sources(write) -> None:  # type: ignore[no-untyped-def]
    path = write(_with("data.task_agnostic", [{"dataset": "a"}, {"dataset": "b"}]))
    sources = load_experiment(path, ["data.task_agnostic.1.weight=2", "data.demonstrations=[{dataset: c}]"]).data
    assert [source.weight for source in sources.task_agnostic.values()] == [1, 2]
    assert [source.dataset for source in sources.demonstrations.values()] == ["c"], "a list replaces what is there"
    for wrong in ("data.task_agnostic.9.weight=2", "data.task_agnostic.weight=2", "data.task_agnostic={weight: 2}"):
        assert f"--set {wrong}: no such place" in _error(path, wrong)


def test_all_quirks_at_once(write) -> None:  # type: ignore[no-untyped-def]
    path = write(_with("algorithm.type", "skild_reference"))
    for overrides in ([], ["algorithm.reference_quirks=true"]):
        assert set(load_experiment(path, overrides).algorithm.reference_quirks) == set(get_args(Quirk))
    assert load_experiment(path, ["algorithm.reference_quirks=false"]).algorithm.reference_quirks == []


def test_another_algorithm_begins_with_its_own_defaults(write) -> None:  # type: ignore[no-untyped-def]
    write(_with("algorithm", {"alpha": 3.0, "batch_size": 7}), "base.yaml")
    for content, overrides in (
        ({"algorithm": {"type": "rlpd", "n_step": 5}}, []),
        ({}, ["algorithm.type=rlpd", "algorithm.n_step=5"]),
        ({}, ["algorithm={type: rlpd, n_step: 5}"]),
    ):
        algorithm = load_experiment(write({"extends": "base.yaml"} | content), overrides).algorithm
        assert isinstance(algorithm, RLPDSettings)
        assert (algorithm.n_step, algorithm.batch_size) == (5, RLPDSettings().batch_size)
    same = load_experiment(write({"extends": "base.yaml", "algorithm": {"type": "skild", "n_step": 5}})).algorithm
    assert (same.alpha, same.n_step) == (3.0, 5)


def test_experiments_do_not_change_after_loading(write) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="frozen"):
        load_experiment(write(MINIMAL)).algorithm.alpha = 3.0


def test_fingerprints() -> None:
    assert fingerprint("a", SkiLDSettings()) == fingerprint("a", SkiLDSettings(alpha=SkiLDSettings().alpha))
    different = [
        fingerprint("a", SkiLDSettings()),
        fingerprint("b", SkiLDSettings()),
        fingerprint("a", SkiLDSettings(alpha=2.1)),
    ]
    assert len({*different, fingerprint("a"), fingerprint(["a"]), fingerprint()}) == 6


def test_more_discriminator_updates_than_updates_are_refused(write) -> None:  # type: ignore[no-untyped-def]
    assert "discriminator_updates" in _error(write(_with("algorithm.discriminator_updates", 2)))
