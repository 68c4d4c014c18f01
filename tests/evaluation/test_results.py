"""Statistics of episodes, and which of them are looked at."""

from pathlib import Path

import numpy as np
import pytest
from pretrained import publish_pretrained, tiny_experiment

from skild_ray.artifacts import publish
from skild_ray.evaluation.policy import build_module
from skild_ray.evaluation.results import evaluate_run, most_telling
from skild_ray.evaluation.rollouts import Episode, summarise


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


def test_completion_of_each_sub_task() -> None:
    played = [episode((30, 60))] * 3 + [episode((40,))] * 6 + [episode()]
    summary = summarise(played, 0, 0)
    kettle, burner = summary["subtasks"]
    assert (kettle["name"], kettle["rate"], burner["name"], burner["rate"]) == ("kettle", 0.9, "top burner", 0.3)
    # Wilson's interval of 9 and of 3 out of 10.
    assert kettle["ci95"] == pytest.approx([0.5958, 0.9821], abs=1e-4)
    assert burner["ci95"] == pytest.approx([0.1078, 0.6032], abs=1e-4)
    assert summary["credited_at"] == [[30, 60]] * 3 + [[40]] * 6 + [[]]
    assert summary["subtasks_mean"] == pytest.approx(1.2)
    low, high = summary["subtasks_ci95"]
    assert (low + high) / 2 == pytest.approx(1.2)


def test_a_single_sub_task_is_success_and_nothing_more() -> None:
    summary = summarise([episode((5,), subtasks=("goal",)), episode(subtasks=("goal",))], 0, 0)
    assert summary["success_rate"] == 0.5
    assert summary.keys().isdisjoint({"subtasks", "subtasks_ci95", "credited_at"})


def test_sub_tasks_that_differ_between_episodes_are_numbered() -> None:
    played = [episode((3,), subtasks=("kettle", "microwave")), episode(subtasks=("microwave", "kettle"))]
    assert [part["name"] for part in summarise(played, 0, 0)["subtasks"]] == ["sub-task 1", "sub-task 2"]


def test_most_telling_episodes() -> None:
    fast, slow, middle = (episode((10, steps), steps) for steps in (40, 90, 60))
    failed, hopeless = episode((10,)), episode()
    played = [slow, hopeless, fast, failed, middle]
    assert most_telling(played, 5) == [4, 1, 2, 3, 0], "typical, worst, best, next worst"
    assert most_telling(played, 1) == [4]
    assert most_telling([failed, hopeless, failed], 2) == [0, 1], "without success the median of all"
    assert most_telling([slow], 3) == [0]


def test_policies_without_rl_are_evaluated_where_they_are_wanted(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path, algorithm={"policy_init_scale": 0.5})
    stages = publish_pretrained(experiment).artifacts
    agent = publish(
        experiment,
        "demo_rl",
        build_module(experiment.run_dir, experiment).state_dict(),
        [{"env_steps": 10.0}],
        fingerprint="untrained",
        data={},
        inputs=stages,
        facts={"env_steps": 10},
    )
    alone = evaluate_run(agent.path, 3, seed=0, without_rl=False)
    assert not {"initial", "posterior"} & set(alone)
    everything = evaluate_run(agent.path, 3, seed=0)
    assert alone.items() <= everything.items()
    assert {"initial", "posterior"} <= set(everything)
    assert evaluate_run(agent.path, 3, seed=0, without_rl=False) == everything, "what is there is kept"
