"""Statistics of episodes, and which of them are looked at."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pretrained import publish_pretrained, tiny_experiment

from skild_ray.algorithms.train import algorithm_config
from skild_ray.envs import make_env
from skild_ray.envs.conventions import return_range_of
from skild_ray.errors import ArtifactError, SkildError
from skild_ray.evaluation.evaluate import evaluate_run, most_telling
from skild_ray.evaluation.results import RESULTS_FILE, Evaluation, PolicySummary, Video, read_evaluation
from skild_ray.evaluation.rollouts import Episode, summarise
from skild_ray.evaluation.tables import show
from skild_ray.runs.artifacts import Artifact, publish


def episode(
    credited_at: tuple[int, ...] = (), env_steps: int = 100, subtasks: tuple[str, ...] = ("kettle", "top burner")
) -> Episode:
    solved = len(credited_at)
    return Episode(
        episode_return=float(solved),
        env_steps=env_steps,
        subtasks_solved=solved,
        success=solved == len(subtasks),
        states=np.zeros((1, 2), np.float32),
        seed=0,
        actions=np.zeros((env_steps, 1), np.float32),
        subtasks=subtasks,
        credited_at=credited_at,
    )


def untrained(tmp_path: Path, **algorithm: Any) -> Artifact:
    """Stage 4 as it begins."""
    experiment = tiny_experiment(tmp_path, algorithm=algorithm)
    stages = publish_pretrained(experiment).artifacts
    return publish(
        experiment,
        "demo_rl",
        algorithm_config(experiment).build_module().state_dict(),
        [{"env_steps": 10.0}],
        fingerprint="untrained",
        data={},
        inputs=stages,
        facts={"env_steps": 10},
    )


def test_completion_of_each_sub_task() -> None:
    played = [episode((30, 60))] * 3 + [episode((40,))] * 6 + [episode()]
    summary = summarise(played, 0, 0)
    kettle, burner = summary.subtasks
    assert (kettle.name, kettle.rate, burner.name, burner.rate) == ("kettle", 0.9, "top burner", 0.3)
    # Wilson's interval of 9 and of 3 out of 10.
    assert kettle.ci95 == pytest.approx([0.5958, 0.9821], abs=1e-4)
    assert burner.ci95 == pytest.approx([0.1078, 0.6032], abs=1e-4)
    assert summary.credited_at == ((30, 60),) * 3 + ((40,),) * 6 + ((),)
    assert summary.subtasks_mean == pytest.approx(1.2)
    # Wilson's interval of a mean of 0.6 over 10, of two sub-tasks.
    assert summary.subtasks_ci95 == pytest.approx([2 * 0.3127, 2 * 0.8318], abs=1e-3)


def test_a_perfect_agent_is_not_certain(capsys: pytest.CaptureFixture[str]) -> None:
    """Every episode is solved: the intervals reach down from the most that is possible, and none goes beyond."""
    names = ("kettle", "bottom burner", "top burner", "slide cabinet")
    played = [replace(episode((1, 2, 3, 4), subtasks=names), return_range=(0.0, 4.0))] * 100
    summary = summarise(played, 0, 0)
    low, high = summary.success_ci95
    assert (round(low, 2), high) == (0.96, 1.0)
    assert summary.subtasks_ci95 == summary.return_ci95 == pytest.approx([4 * low, 4.0])
    assert max(summary.subtasks_ci95 + summary.return_ci95) <= 4
    show(Evaluation({"trained": PolicySummary(summary, summary)}))
    said = capsys.readouterr().out
    assert "1.00 (0.96 .. 1.00)" in said
    assert said.count("4.00 (3.85 .. 4.00)") == 2 * 2


def test_interval_of_returns_without_known_bounds() -> None:
    """Two values are a rate; many are bootstrapped; of equal ones nothing is known."""
    solved, failed = episode((1, 2)), episode()
    low, high = summarise([solved] * 96 + [failed] * 4, 0, 0).success_ci95
    assert summarise([solved] * 96 + [failed] * 4, 0, 0).return_ci95 == pytest.approx([2 * low, 2 * high])
    assert summarise([solved] * 100, 0, 0).return_ci95 is None
    several = summarise([solved] * 50 + [episode((1,))] * 30 + [failed] * 20, 0, 0)
    low, high = several.return_ci95
    assert 1 < low < several.return_mean == 1.3 < high < 1.6


def test_a_return_outside_of_its_range_is_one_line() -> None:
    with pytest.raises(SkildError, match=r"returns of 2 to 2 are outside of .* return_range, 0 to 1") as caught:
        summarise([replace(episode((1, 2)), return_range=(0.0, 1.0))], 0, 0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "kwargs", "expected"),
    [
        ("skild_ray/Maze-v0", {}, (0.0, 100.0)),
        ("skild_ray/Maze-v0", {"goal_reward": -2.0}, (-2.0, 0.0)),
        ("skild_ray/Kitchen-v0", {}, (0.0, 4.0)),
        ("skild_ray/Office-v0", {}, (0.0, 8.0)),
        ("MountainCarContinuous-v0", {}, None),
    ],
)
def test_range_of_returns(environment: str, kwargs: dict[str, Any], expected: tuple[float, float] | None) -> None:
    with contextlib.closing(make_env(environment, kwargs)) as env:
        assert return_range_of(env) == expected


def test_a_single_sub_task_is_success_and_nothing_more() -> None:
    summary = summarise([episode((5,), subtasks=("goal",)), episode(subtasks=("goal",))], 0, 0)
    assert summary.success_rate == 0.5
    content = Evaluation({"trained": PolicySummary(summary, summary)}).to_json()
    assert content.keys().isdisjoint({"subtasks", "subtasks_ci95", "credited_at"})


def test_sub_tasks_that_differ_between_episodes_are_numbered() -> None:
    played = [episode((3,), subtasks=("kettle", "microwave")), episode(subtasks=("microwave", "kettle"))]
    assert [subtask.name for subtask in summarise(played, 0, 0).subtasks] == ["sub-task 1", "sub-task 2"]


def test_most_telling_episodes() -> None:
    fast, slow, middle = (episode((10, steps), steps) for steps in (40, 90, 60))
    failed, hopeless = episode((10,)), episode()
    played = [slow, hopeless, fast, failed, middle]
    assert most_telling(played, 5) == [4, 1, 2, 3, 0], "typical, worst, best, next worst"
    assert most_telling(played, 1) == [4]
    assert most_telling([failed, hopeless, failed], 2) == [0, 1], "without success the median of all"
    assert most_telling([slow], 3) == [0]


def test_policies_without_rl_are_evaluated_where_they_are_wanted(tmp_path: Path) -> None:
    agent = untrained(tmp_path, policy_init_scale=0.5)
    alone = evaluate_run(agent.path, 3, seed=0, without_rl=False)
    assert set(alone.policies) == {"trained"}
    everything = evaluate_run(agent.path, 3, seed=0)
    assert alone.trained == everything.trained
    assert set(everything.policies) == {"trained", "initial", "posterior"}
    assert evaluate_run(agent.path, 3, seed=0, without_rl=False) == everything, "what is there is kept"


def test_an_environment_that_renders_nothing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_run(untrained(tmp_path).path, 3, seed=0, videos=1, without_rl=False).videos == ()
    said = capsys.readouterr().out
    assert "no video: environment 'line_world:LineEnv' declares no render mode 'rgb_array'\n" in said


@pytest.mark.parametrize(("scale", "same"), [(1.0, True), (0.1, False)])
def test_skill_bc_is_beside_the_policy_that_training_starts_from(
    tmp_path: Path, scale: float, same: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """They have the same mean, and are sampled apart where their sigmas differ."""
    evaluation = evaluate_run(untrained(tmp_path, policy_init_scale=scale).path, 10, seed=0)
    assert [label for label, _ in evaluation.labelled] == [
        f"{policy}, {how}" for policy in ("trained", "initial", "skill BC") for how in ("deterministic", "sampled")
    ]
    initial, cloned = evaluation.policies["initial"], evaluation.policies["posterior"]
    assert initial.deterministic == cloned.deterministic
    assert ("skill BC policy, sampled" in capsys.readouterr().out) != same
    assert not same or initial == cloned


def test_an_evaluation_with_other_intervals_is_made_again(tmp_path: Path) -> None:
    agent = untrained(tmp_path)
    evaluation = evaluate_run(agent.path, 3, seed=0)
    content = evaluation.to_json()
    del content["format"]
    (agent.path / RESULTS_FILE).write_text(json.dumps(content | {"return_ci95": [7, 7]}))
    assert evaluate_run(agent.path, 3, seed=0) == evaluation


def test_the_layout_of_the_results(tmp_path: Path) -> None:
    """The trained, deterministic policy is the root; all else hangs on it, and comes back from there."""
    solved, failed = episode((30, 60)), episode((40,))
    trained = PolicySummary(summarise([solved, failed, failed], 500, 7), summarise([failed] * 3, 500, 7))
    initial = PolicySummary(summarise([failed] * 3, 0, 7), summarise([failed, failed, episode()], 0, 7))
    filmed = Video(
        name="episode_001",
        episode=1,
        seed=5,
        success=False,
        env_steps=100,
        subtasks=("kettle", "top burner"),
        credited_at=(40,),
    )
    evaluation = Evaluation({"trained": trained, "initial": initial}, videos_wanted=1, videos=(filmed,))
    text = json.dumps(evaluation.to_json())
    content = json.loads(text)
    summary_keys = ["episodes", "success_rate", "success_ci95", "return_mean", "return_ci95", "subtasks_mean"]
    summary_keys += ["episode_length_mean", "env_steps_trained", "seed", "subtasks_ci95", "subtasks", "credited_at"]
    assert list(content) == [*summary_keys, "format", "sampled", "initial", "videos_wanted", "videos"]
    assert list(content["sampled"]) == summary_keys
    assert list(content["initial"]) == [*summary_keys, "sampled"]
    assert (content["format"], content["episodes"], content["seed"], content["env_steps_trained"]) == (2, 3, 7, 500)
    assert [content[name] for name in ("success_rate", "return_mean")] == pytest.approx([1 / 3, 4 / 3])
    assert content["initial"]["return_ci95"] is None, "equal returns have no interval, and say so"
    assert content["credited_at"] == [[30, 60], [40], [40]]
    assert [(subtask["name"], subtask["rate"]) for subtask in content["sampled"]["subtasks"]] == [
        ("kettle", 1.0),
        ("top burner", 0.0),
    ]
    assert content["videos"] == [
        {
            "name": "episode_001",
            "episode": 1,
            "seed": 5,
            "success": False,
            "env_steps": 100,
            "subtasks": ["kettle", "top burner"],
            "credited_at": [40],
        }
    ]
    (tmp_path / RESULTS_FILE).write_text(text)
    assert read_evaluation(tmp_path) == evaluation


def test_no_videos_are_mentioned_unless_some_were_wanted() -> None:
    summary = summarise([episode()], 0, 0)
    plain, nothing_renders = (Evaluation({"trained": PolicySummary(summary, summary)}, wanted) for wanted in (0, 2))
    assert plain.to_json().keys().isdisjoint({"videos", "videos_wanted"})
    assert (nothing_renders.to_json()["videos_wanted"], nothing_renders.to_json()["videos"]) == (2, [])


@pytest.mark.parametrize("content", ['{"episodes": 1', "null", "[]", "{}", "sampled"])
def test_damaged_results_name_the_remedy(tmp_path: Path, content: str) -> None:
    if content == "sampled":
        summary = summarise([episode()], 0, 0)
        whole = Evaluation({"trained": PolicySummary(summary, summary)}).to_json()
        content = json.dumps({name: value for name, value in whole.items() if name != "sampled"})
    (tmp_path / RESULTS_FILE).write_text(content)
    with pytest.raises(ArtifactError, match=r"evaluation\.json: damaged; delete it and run: [^\n]*$"):
        read_evaluation(tmp_path)
