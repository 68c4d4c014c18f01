"""`python -m benchmarks.learning.tape`: what blind replays solve, where they can be counted by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.learning.tape import show, tape_test
from benchmarks.measure import write_json
from skild_ray.config import Experiment
from skild_ray.errors import ConfigError
from skild_ray.generation.collect import Request, collect

EPISODES = 20


def experiment(**generate: Any) -> Experiment:
    """Walks to goals at 0.5 to 1.0, a tenth a step, whose ends are drawn at reset."""
    source = {"expert": "line_world:LineExpert", "episodes": 3, "action_noise": 0.3, **generate}
    return line_experiment({"generate": source})


def line_experiment(source: dict[str, Any]) -> Experiment:
    data = {"task_agnostic": {"play": source}, "demonstrations": {"shown": source}}
    return Experiment.model_validate({"name": "line", "environment": {"id": "line_world:LineEnv"}, "data": data})


def test_a_tape_solves_what_is_no_further_than_its_own_goal(tmp_path: Path) -> None:
    test = tape_test(experiment(), tapes=3, episodes=EPISODES)
    assert (test.maximum, test.demonstrator) == (1, [1.0] * EPISODES)

    source = experiment(action_noise=0.0).data.demonstrations["shown"].generate
    assert source is not None
    noise_free = Request.of(source, experiment().environment, seed=0)
    reached = [0.1 * float(episode.actions.sum()) for episode in collect(noise_free, 0, 3)]
    env = noise_free.make_env()
    goals = [env.reset(seed=int(seed))[0][1] for seed in np.random.SeedSequence(1000).generate_state(EPISODES)]
    expected = [np.mean([goal <= end + 1e-6 for goal in goals]) for end in reached]
    assert test.tapes == pytest.approx(expected)
    assert len(set(expected)) > 1, "tapes differ"

    show(test)
    write_json(tmp_path / "tape.json", test.results)
    written = json.loads((tmp_path / "tape.json").read_text())
    assert written["tape_mean"] == pytest.approx(np.mean(expected)) and written["tape_best"] == max(expected)
    assert (written["demonstrator_mean"], written["maximum"]) == (1.0, 1)


def test_what_cannot_be_recorded_is_said() -> None:
    with pytest.raises(ConfigError, match="solved 0 of 10 episodes, not 1"):
        tape_test(experiment(env_kwargs={"hopeless": 1.0}), tapes=1, episodes=1)
    with pytest.raises(ConfigError, match=r"none of data\.demonstrations is generated"):
        tape_test(line_experiment({"dataset": "a/b-v0"}), tapes=1, episodes=1)
