"""What stages ask of the cluster, and what is said of what it lacks."""

from typing import Any

import pytest
import torch
from pretrained import tiny_experiment

from skild_ray import resources
from skild_ray.config import Experiment
from skild_ray.errors import SkildError
from skild_ray.resources import Request, Waiting, check, downstream_requests, missing, offline_requests


def _experiment(**sections: Any) -> Experiment:
    return tiny_experiment("runs", **sections)


@pytest.fixture
def another_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the cluster were one that others have started, and that may grow."""
    monkeypatch.setattr(resources, "is_local", lambda: False)


def test_what_fits_lacks_nothing() -> None:
    nodes = [{"CPU": 2.0}, {"CPU": 2.0, "GPU": 1.0}]
    assert missing([Request("workers", "x.workers", 2, {"CPU": 2.0})], nodes) == []
    assert missing([Request("workers", "x.workers", 3, {"CPU": 0.1}), Request("a", "b", 0, {"TPU": 1.0})], nodes) == []


def test_every_lack_is_named_with_the_settings_that_ask_for_it() -> None:
    requests = [
        Request("env runners", "rollout.num_env_runners", 3, {"CPU": 1.0, "simulator": 1.0}),
        Request("learners", "resources.num_learners", 2, {"CPU": 1.0, "GPU": 1.0}),
    ]
    assert missing(requests, [{"CPU": 4.0, "simulator": 2.0}, {}]) == [
        "5 CPUs for env runners (rollout.num_env_runners 3) and learners (resources.num_learners 2), the cluster has 4",
        "3 simulators for env runners (rollout.num_env_runners 3), the cluster has 2",
        "2 GPUs for learners (resources.num_learners 2, resources.use_gpu), the cluster has 0",
    ]


def test_a_worker_needs_one_node_that_holds_it() -> None:
    request = Request("Train workers", "resources.train_workers", 1, {"CPU": 3.0, "GPU": 1.0})
    assert missing([request], [{"CPU": 4.0}, {"CPU": 2.0, "GPU": 1.0}]) == [
        "a node that has 3 CPUs and 1 GPU for one of the Train workers (resources.train_workers)"
    ]


def test_requests_of_the_stages() -> None:
    experiment = _experiment(
        resources={"train_workers": 2, "cpus_per_train_worker": 3, "num_learners": 1, "learner_threads": 2},
        rollout={"num_env_runners": 4, "cpus_per_env_runner": 0.5, "env_runner_resources": {"simulator": 1}},
    )
    (workers,) = offline_requests(experiment)
    assert (workers.processes, workers.each) == (2, {"CPU": 3.0})
    runners, learners = downstream_requests(experiment)
    assert (runners.processes, runners.each) == (4, {"CPU": 0.5, "simulator": 1.0})
    assert (learners.processes, learners.each) == (1, {"CPU": 2.0})


@pytest.mark.parametrize("gpu_here", [False, True])
def test_the_learner_goes_to_a_gpu_where_the_driver_has_none(monkeypatch: pytest.MonkeyPatch, gpu_here: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu_here)
    experiment = _experiment(resources={"use_gpu": True})
    assert offline_requests(experiment)[0].each == {"CPU": 1.0, "GPU": 1.0}
    learners = downstream_requests(experiment)[1]
    assert learners.processes == (0 if gpu_here else 1)
    assert learners.each["GPU"] == 1
    assert downstream_requests(_experiment())[1].processes == 0


def test_a_local_ray_refuses_what_it_can_never_hold(ray_session: None) -> None:
    experiment = _experiment(resources={"train_workers": 4})
    with pytest.raises(
        SkildError, match=r"skill_prior needs 4 CPUs .*train_workers 4.*, the cluster has 2: "
    ) as caught:
        check("skill_prior", offline_requests(experiment))
    assert "\n" not in str(caught.value)
    check("skill_prior", offline_requests(_experiment()))


def test_another_cluster_may_grow(ray_session: None, another_cluster: None, capsys: pytest.CaptureFixture[str]) -> None:
    rollout = {"num_env_runners": 2, "cpus_per_env_runner": 0.5, "env_runner_resources": {"simulator": 1}}
    check("demo_rl", downstream_requests(_experiment(rollout=rollout)))
    (said,) = capsys.readouterr().out.splitlines()
    assert said == ("demo_rl: waiting for 2 simulators for env runners (rollout.num_env_runners 2), the cluster has 0")


def test_who_waits_says_so_again_and_again(
    ray_session: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("CHECK_INTERVAL_S", "LACK_S", "START_S", "LINE_INTERVAL_S"):
        monkeypatch.setattr(resources, name, 0.01)

    def said_by(waiting: Waiting) -> str:
        """Its lines, once there are three."""
        out = ""
        with waiting:
            while out.count("\n") < 3:
                out += capsys.readouterr().out
        return out

    lacking = Request("Train workers", "resources.train_workers", 5, {"CPU": 1.0})
    assert set(said_by(Waiting("skill prior", [lacking], started=True)).splitlines()) == {
        "skill prior: waiting for 5 CPUs for Train workers (resources.train_workers 5), the cluster has 2"
    }
    assert "not started yet; " in said_by(Waiting("skill prior", [lacking._replace(processes=1)]))
