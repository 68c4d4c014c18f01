"""Q-chunking: its losses by hand, what it learns from, offline updates and checkpoints, and the run as a whole."""

import copy
import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from pretrained import tiny_experiment
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from short_runs import equal

from skild_ray.algorithms.checkpoints import restore_newest, save_checkpoint
from skild_ray.algorithms.qc.losses import qc_losses
from skild_ray.algorithms.qc.qc import QC, QCConfig
from skild_ray.algorithms.qc.qc_experience import ChunkExperience, step_rows
from skild_ray.algorithms.qc.qc_rl_module import QCTorchRLModule
from skild_ray.algorithms.replay import learner_shares
from skild_ray.algorithms.train import algorithm_config, module_weights
from skild_ray.algorithms.transitions import Rows
from skild_ray.config import Experiment
from skild_ray.errors import ArtifactError
from skild_ray.evaluation.agent import load_agent
from skild_ray.evaluation.evaluate import evaluate_run
from skild_ray.pipeline import Run
from skild_ray.report.run_page import write_report
from skild_ray.runs.artifacts import open_artifact
from skild_ray.runs.folder import run_folder

SETTINGS = {"hidden": 16, "batch_size": 32, "chunk_length": 3, "flow_steps": 3, "warmup_env_steps": 100}
SPACES = {DEFAULT_MODULE_ID: (Box(-np.inf, np.inf, (2,), np.float32), Box(-1, 1, (3,), np.float32))}


def _qc(runs: Path, **changes: Any) -> Experiment:
    """QC on the line: 160 offline updates, then 400 env steps; fields of `QCSettings` may be changed."""
    algorithm = SETTINGS | {"type": "qc", "offline_updates": 160, "total_env_steps": 400, "synchronous": True}
    return tiny_experiment(runs, algorithm=algorithm | changes)


# --- losses ---


def test_losses_by_hand() -> None:
    """Two chunks of h = 2 actions of 2 numbers. The first is whole; the second terminates after one step."""
    batch = {
        "returns": torch.tensor([1.0, 5.0]),
        "bootstrap": torch.tensor([0.81, 0.0]),
        "weight": torch.tensor([1.0, 1.0]),
        "inside": torch.tensor([[1.0, 1.0], [1.0, 0.0]]),
    }
    q = torch.tensor([[2.0, 4.0], [3.0, 5.0]], requires_grad=True)
    velocity = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 9.0, 9.0]], requires_grad=True)
    out = {
        "q": q,
        "q_next": torch.tensor([10.0, 99.0]),
        "velocity": velocity,
        "displacement": torch.tensor([[0.0, 2.0, 3.0, 2.0], [1.0, 0.0, 0.0, 0.0]]),
        "proposal": torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0]]),
        "flow_chunk": torch.zeros(2, 4),
        "q_policy": torch.tensor([3.0, 5.0]),
    }
    losses, target = qc_losses(batch, out, distillation_weight=8.0)
    assert target.tolist() == pytest.approx([1 + 0.81 * 10, 5.0])
    assert losses.critic.item() == pytest.approx((7.1**2 + 1 + 6.1**2 + 0) / 4)
    assert losses.flow.item() == pytest.approx((1 + 0 + 0 + 4 + 0 + 1) / 8), "one action of the second is unknown"
    assert losses.policy.item() == pytest.approx(8 * (1 + 4) / 8 - 4)
    losses.total.backward()
    assert velocity.grad is not None and velocity.grad[1, 2:].tolist() == [0, 0]
    cut = qc_losses(batch | {"weight": torch.tensor([1.0, 0.0])}, out, distillation_weight=8.0).losses
    assert cut.critic.item() == pytest.approx((7.1**2 + 6.1**2) / 4)
    without = {name: out[name] for name in ("q", "q_next", "velocity", "displacement")}
    assert qc_losses(batch, without, distillation_weight=8.0).losses.policy.item() == 0


def _module(inference_only: bool = False, **changes: Any) -> QCTorchRLModule:
    torch.manual_seed(0)
    observations, chunks = SPACES[DEFAULT_MODULE_ID]
    settings = QCConfig().training(**SETTINGS | changes).settings
    return QCTorchRLModule(
        observation_space=observations,
        action_space=chunks,
        inference_only=inference_only,
        model_config={"algorithm": settings.model_dump()},
    )


def test_a_straight_flow_carries_noise_to_its_end() -> None:
    """v(s, x, u) = (0.5, 0, -3) everywhere: after any number of Euler steps x = e + v, in [-1, 1]."""
    module = _module()
    last = module.flow[-1]
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([0.5, 0.0, -3.0])
    carried = module.carried(torch.zeros(1, 2), torch.tensor([[0.25, -0.5, 0.0]]))
    assert carried.tolist() == [pytest.approx([0.75, -0.5, -1.0])]


def test_best_of_n_is_what_the_critics_like_best() -> None:
    module = _module(actor="best_of_n", samples=5)
    states, noise = torch.randn(4, 2), torch.randn(4, 5, 3)
    with torch.no_grad():
        chosen = module.chunks(states, noise)
        for index, state in enumerate(states):
            repeated = state.expand(5, -1)
            candidates = module.carried(repeated, noise[index])
            best = module.critics(torch.cat([repeated, candidates], -1)).mean(0).argmax()
            torch.testing.assert_close(chosen[index], candidates[best])


@pytest.mark.parametrize("actor", ["distilled", "best_of_n"])
def test_env_runners_act_with_what_they_are_given(actor: str) -> None:
    module, runner = _module(actor=actor), _module(actor=actor, inference_only=True)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    runner.set_state(module.get_state(inference_only=True))
    states = {Columns.OBS: torch.randn(6, 2)}
    expected = module.forward_inference(states)[Columns.ACTIONS]
    assert torch.equal(runner.forward_inference(states)[Columns.ACTIONS], expected)
    assert torch.equal(runner.forward_inference(states)[Columns.ACTIONS], expected), "deterministic"
    sampled = [module.forward_exploration(states)[Columns.ACTIONS] for _ in range(2)]
    assert not torch.equal(*sampled)
    assert expected.shape == (6, 3) and expected.abs().max() <= 1
    assert not hasattr(runner, "target_critics")


@pytest.mark.parametrize("actor", ["distilled", "best_of_n"])
def test_an_update_moves_everything_and_targets_slowly(actor: str) -> None:
    torch.manual_seed(0)
    config = QCConfig().environment("none").demonstrations("none").task_agnostic("none")
    learner = config.training(**SETTINGS, actor=actor, target_update_rate=0.01).build_learner(spaces=SPACES)
    learner.build()
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    before = {name: value.detach().clone() for name, value in module.state_dict().items()}
    drawn = _experience([_episode(9, terminated=True)]).draw(1, 8)
    batch = SampleBatch({name: torch.from_numpy(column) for name, column in drawn.items()})
    learner.update(batch=MultiAgentBatch({DEFAULT_MODULE_ID: batch}, env_steps=8), timesteps={})
    after = module.state_dict()
    moved = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == {"flow", "critics", "target_critics", *(("actor",) if actor == "distilled" else ())}
    for name, value in after.items():
        if name.startswith("target_critics"):
            expected = 0.99 * before[name] + 0.01 * after[name.removeprefix("target_")]
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_what_the_actor_likes_does_not_move_the_critics() -> None:
    module = _module()
    batch = {name: torch.from_numpy(c) for name, c in _experience([_episode(9, terminated=True)]).draw(1, 8).items()}
    module._forward_train(batch)["q_policy"].sum().backward()
    assert all(parameter.grad is None for parameter in module.critics.parameters())
    assert module.actor is not None and any(parameter.grad.abs().sum() > 0 for parameter in module.actor.parameters())


# --- what is learned from ---


def _episode(length: int, terminated: bool, first: int = 0) -> Rows:
    """Step t leads from state t to t + 1 by the action t / 100 and pays t."""
    steps = np.arange(first, first + length, dtype=np.float32)
    ends = np.zeros(length, np.float32)
    ends[-1] = terminated
    return {
        "obs": np.stack([steps, steps], 1),
        "next_obs": np.stack([steps, steps], 1) + 1,
        "actions": steps[:, None] / 100,
        "rewards": steps,
        "k": np.ones(length, np.int64),
        "terminated": ends,
    }


def _experience(episodes: list[Rows], seed: int = 0) -> ChunkExperience:
    return ChunkExperience(episodes, length=3, discount=0.9, capacity=1_000, seed=seed)


@pytest.mark.parametrize("terminated", [True, False])
def test_chunks_begin_everywhere_and_end_with_the_episode(terminated: bool) -> None:
    drawn = _experience([_episode(5, terminated)]).draw(3, 100)
    starts = drawn["obs"][:, 0].astype(int)
    assert set(starts) == set(range(5))
    for row, start in enumerate(starts):
        k = min(3, 5 - start)
        steps = range(start, start + k)
        over = terminated and start + k == 5
        assert drawn["inside"][row].tolist() == [1] * k + [0] * (3 - k)
        np.testing.assert_allclose(drawn["actions"][row, :k], [step / 100 for step in steps])
        assert drawn["returns"][row] == pytest.approx(sum(0.9**i * step for i, step in enumerate(steps)))
        assert drawn["next_obs"][row, 0] == start + k
        assert drawn["bootstrap"][row] == pytest.approx(0 if over else 0.9**k)
        assert drawn["weight"][row] == (k == 3 or over)
    unexecuted = drawn["actions"][drawn["inside"] == 0]
    assert unexecuted.min() < -0.9 and unexecuted.max() > 0.9


def _chunked(rows: Rows, executed: list[int], terminated: bool) -> SingleAgentEpisode:
    """The same steps as an env runner brings them, in chunks of 3 of which so many steps were executed."""
    episode = SingleAgentEpisode(observation_space=Box(-np.inf, np.inf, (2,)), action_space=Box(-1, 1, (3,)))
    episode.add_env_reset(rows["obs"][0], {"k": 0})
    done = 0
    for k in executed:
        done += k
        pad = ((0, 3 - k), (0, 0))
        within = slice(done - k, done)
        last = done == len(rows["rewards"])
        episode.add_env_step(
            rows["next_obs"][done - 1],
            np.pad(rows["actions"][within], pad, constant_values=7.0).reshape(-1),
            rows["rewards"][within].sum(),
            {
                "k": k,
                "states": np.pad(rows["obs"][within], pad),
                "step_rewards": np.pad(rows["rewards"][within], (0, 3 - k)),
            },
            terminated=last and terminated,
            truncated=last and not terminated,
        )
    return episode


@pytest.mark.parametrize("terminated", [True, False])
def test_steps_within_the_chunks_of_an_env_runner(terminated: bool) -> None:
    expected = _episode(7, terminated)
    found = step_rows(_chunked(expected, [3, 3, 1], terminated))
    assert found.keys() == expected.keys()
    for name, column in found.items():
        np.testing.assert_array_equal(column, expected[name], err_msg=name)


def test_offline_data_and_own_experience_are_drawn_uniformly() -> None:
    """100 offline steps; own experience, from state 500 on, is none of a batch at first, then a quarter, then half."""
    experience = _experience([_episode(60, True), _episode(40, True, first=60)])
    for share, own in ((0.0, 0), (0.25, 33), (0.5, 66)):
        if own:
            experience.add([_chunked(_episode(own, True, first=500), [3] * (own // 3), True)])
        batches = experience.draw(50, 32)["obs"][:, 0].reshape(50, 32) >= 500
        assert batches.mean() == pytest.approx(share, abs=0.05)
        assert own == 0 or len(set(batches.sum(1))) > 3, "each batch on its own"


@pytest.mark.parametrize("learners", [1, 2])
def test_learners_get_the_same_mixture(learners: int) -> None:
    experience = _experience([_episode(60, True)])
    experience.add([_chunked(_episode(60, True, first=500), [3] * 20, True)])
    own = experience.draw(6, 32)["obs"][:, 0] >= 500
    shares = learner_shares(own, 6, learners).reshape(learners, 6, -1).sum(2)
    whole = own.reshape(6, 32).sum(1)
    assert (np.abs(shares - whole / learners) < 1).all()


def test_a_restored_experience_draws_the_same() -> None:
    first, second = _experience([_episode(60, True)]), _experience([_episode(60, True)], seed=7)
    first.add([_chunked(_episode(60, True, first=500), [3] * 20, True)])
    first.draw(2, 8)
    state = first.get_state()
    assert "data" not in state["offline"]
    second.set_state(state)
    drawn = first.draw(2, 8), second.draw(2, 8)
    for name, column in drawn[0].items():
        np.testing.assert_array_equal(column, drawn[1][name], err_msg=name)
    with pytest.raises(ArtifactError, match="trained from 60 offline transitions, there are 61"):
        _experience([_episode(61, True)]).set_state(state)


# --- the whole ---


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, ray_session: None
) -> Iterator[tuple[Experiment, Callable[..., list[str]]]]:
    """A finished run, and a function that runs the experiment again and says what it reported."""
    folder = tmp_path_factory.mktemp("qc")
    (folder / "minari").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        patch.setenv("TUNE_RESULT_DIR", str(folder / "ray"))

        def run(**changes: Any) -> list[str]:
            messages: list[str] = []
            Run(_qc(folder, **changes), messages.append).train_all()
            return messages

        run()
        yield _qc(folder), run


def _rows(experiment: Experiment) -> list[dict[str, str]]:
    with (run_folder(experiment) / "qc" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_offline_updates_come_first(finished: tuple[Experiment, Callable[..., list[str]]]) -> None:
    experiment, run = finished
    facts = open_artifact(run_folder(experiment), "qc").facts
    assert 340 < facts["env_steps"] <= 400
    assert facts["env_steps"] > 2 * facts["decisions"], "a decision lasts up to 3 env steps"
    rows = _rows(experiment)
    offline = [row for row in rows if int(row["env_steps"]) == 0]
    assert [int(row["updates"]) for row in offline] == [80, 160]
    collected = facts["env_steps"] - next(
        int(row["env_steps"]) for row in rows[len(offline) :] if int(row["env_steps"]) >= 100
    )
    assert facts["updates"] - 160 == pytest.approx(collected, abs=48), "one for each env step after the first 100"
    for name in ("success", "critic_loss", "flow_loss", "policy_loss", "q_policy"):
        assert math.isfinite(float(rows[-1][name]))
    assert [message.split(",")[0] for message in run()] == ["qc: up to date"]


def test_evaluation_and_report(finished: tuple[Experiment, Callable[..., list[str]]]) -> None:
    experiment, _ = finished
    evaluation = evaluate_run(run_folder(experiment) / "qc", episodes=4, seed=3)
    assert set(evaluation.policies) == {"trained"}
    assert evaluation.trained.deterministic.env_steps_trained > 340
    page = write_report(run_folder(experiment)).read_text()
    assert all(text in page for text in ("Q-chunking", "Flow loss", "before 0 offline updates"))
    assert "Not finished" not in page
    states = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    (checkpoint,) = (run_folder(experiment) / ".work").glob("qc-*/checkpoint_*")
    policies = [load_agent(path).policy(deterministic=True, seed=0) for path in (run_folder(experiment), checkpoint)]
    np.testing.assert_array_equal(policies[0](states), policies[1](states))


def test_observations_are_standardised_by_the_offline_data(
    finished: tuple[Experiment, Callable[..., list[str]]],
) -> None:
    """Its agent's module has the statistics; the line's positions begin at 0 and end at the goal, 0.5 to 1."""
    experiment, _ = finished
    module = load_agent(run_folder(experiment)).module
    assert 0.2 < module.standardize.mean[0] < 0.6 and 0.5 < module.standardize.mean[1] < 1
    changed = copy.deepcopy(module)
    changed.standardize.mean += 0.7
    states = {Columns.OBS: torch.rand(6, 2)}
    shifted = {Columns.OBS: states[Columns.OBS] + 0.7}
    found = [one.forward_inference(x)[Columns.ACTIONS] for one, x in ((module, states), (changed, shifted))]
    torch.testing.assert_close(*found)


def test_an_interrupted_run_is_the_same_run(
    finished: tuple[Experiment, Callable[..., list[str]]], tmp_path: Path
) -> None:
    """Checkpoints after 80 and 160 offline updates, and in the middle of the experience; each is continued."""
    experiment, built = finished[0], []

    def build() -> QC:
        algo = algorithm_config(experiment).build_algo()
        assert isinstance(algo, QC)
        built.append(algo)
        return algo

    def advance(algo: QC, folder: Path) -> dict[str, torch.Tensor]:
        """Train to the end with a checkpoint whenever one is due; the weights."""
        while not algo.finished:
            before = algo.steps
            algo.train()
            if algo.steps // 80 > before // 80:
                save_checkpoint(algo, folder, [], keep=9)
        return module_weights(algo)

    try:
        whole = advance(build(), tmp_path / "whole")
        checkpoints = sorted((tmp_path / "whole").iterdir())
        offline = [path.name for path in checkpoints if path.name.startswith("checkpoint_000000000000")]
        assert offline == ["checkpoint_000000000000_000000000080", "checkpoint_000000000000_000000000160"]
        for checkpoint in (checkpoints[0], checkpoints[len(checkpoints) // 2]):
            folder = tmp_path / f"from_{checkpoint.name}"
            folder.mkdir()
            (folder / checkpoint.name).symlink_to(checkpoint)
            resumed = build()
            restore_newest(resumed, folder, 400)
            assert resumed.offline_updates_left == (80 if checkpoint is checkpoints[0] else 0)
            assert equal(advance(resumed, folder), whole)
    finally:
        for algo in built:
            algo.stop()
