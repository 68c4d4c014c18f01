"""What the released code does otherwise, each quirk by itself; its transitions are in `test_transitions`."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from counting_env import CountingEnv
from gymnasium.spaces import Box
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from short_runs import VARIED, Build, finish
from torch import Tensor

from skild_ray.algorithms.off_policy_config import make_runner_env
from skild_ray.algorithms.pretrained import Pretrained, load_decoder
from skild_ray.algorithms.skild.reference import (
    ReferenceLearner,
    ReferenceSkiLDConfig,
    TracedSkillVectorEnv,
    reference_losses,
    saturating_reward,
    squashed,
)
from skild_ray.algorithms.skild.reference_settings import ReferenceSettings
from skild_ray.algorithms.skild.settings import SkiLDSettings
from skild_ray.algorithms.train import algorithm_config, module_weights
from skild_ray.config import Experiment, with_values
from skild_ray.envs.skill_env import SkillVectorEnv
from skild_ray.evaluation.agent import Agent
from skild_ray.evaluation.rollouts import evaluation_env, play
from skild_ray.runs.folder import run_folder

INSIDE, OUTSIDE = 1e4, -1e4
"""Logits of states that D is certain of."""


def _released(quirks: list[str], **settings: Any) -> ReferenceSettings:
    content = {"learn_alphas": False, **settings, "reference_quirks": quirks}
    return ReferenceSettings.model_validate(content).followed()


def test_a_fixed_alpha_is_ignored_and_a_learned_one_starts_there() -> None:
    quirks = ["ignored_fixed_alpha"]
    assert [_released(quirks, alpha=0.1, alpha_q=5.0).alpha, _released(quirks, alpha_q=5.0).alpha_q] == [1.0, 5.0]
    assert _released(quirks, alpha=0.1, learn_alphas=True).alpha == 0.1
    assert _released([], alpha=0.1).alpha == 0.1


def test_the_discriminator_is_frozen() -> None:
    assert _released(["frozen_discriminator"], discriminator_updates=1.0).discriminator_rate == 0
    assert _released([], discriminator_updates=1.0).discriminator_rate == 1


def test_imitation_keeps_the_environments_reward() -> None:
    settings = _released(["imitation_env_reward"], env_reward_weight=0.0)
    assert settings.env_reward_weight == 0.9
    assert settings.discriminator_rate == 0.2, "as in imitation"
    assert _released(["imitation_env_reward"], env_reward_weight=0.5).env_reward_weight == 0.5


def test_saturating_reward() -> None:
    logits = torch.tensor([-1e4, -30.0, -2.0, 0.0, 2.0, 30.0, 1e4])
    expected = torch.tensor([-46.0517, -30, -2, 0, 2, 46.0517, 46.0517])
    torch.testing.assert_close(saturating_reward(SkiLDSettings(), logits), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("quirks", "target"),
    [
        ([], 0.5 * 5 + 0.9 * (10 - 0.5 * 4)),
        (["current_state_weights"], 0.5 * 5 + 0.9 * (10 - 3 * 2)),
        (["saturating_reward"], 0.5 * 46.0517 + 0.9 * (10 - 0.5 * 4)),
    ],
)
def test_losses(quirks: list[str], target: float) -> None:
    settings = ReferenceSettings.model_validate(
        {"env_reward_weight": 0.5, "kl_in_target": True, "reference_quirks": quirks}
    )
    one = torch.ones(1)
    batch = {"returns": 0 * one, "n_step_weights": one[None], "bootstrap": 0.9 * one, "later_weights": 0.9 * one[None]}
    out: dict[str, Tensor] = dict.fromkeys(("q_policy", "kl_prior", "kl_posterior"), one)
    out |= {
        "q": torch.zeros(2, 1),
        "q_next": 10 * one,
        "logits": INSIDE * one[None],
        "log_alpha": one.log() - math.log(2),
    }
    out |= {"log_alpha_q": torch.tensor(3.0).log(), "later_logits": OUTSIDE * one[None]}
    out |= {"later_kl_prior": 4 * one[None], "later_kl_posterior": 2 * one[None]}
    assert reference_losses(settings, batch, out).target.item() == pytest.approx(target, abs=1e-3)


def test_a_learner_with_all_quirks_stays_finite(pretrained_run: Experiment, batch: dict[str, Tensor]) -> None:
    torch.manual_seed(0)
    config = ReferenceSkiLDConfig.from_experiment(
        with_values(pretrained_run, {"algorithm.type": "skild_reference"})
    ).training(learn_alphas=True, kl_in_target=True, kl="sampled", kl_clamp=100.0)
    spaces = tuple(Box(-np.inf, np.inf, batch[name].shape[1:], np.float32) for name in ("obs", "actions"))
    learner = config.build_learner(spaces={DEFAULT_MODULE_ID: spaces})
    learner.build()
    assert isinstance(learner, ReferenceLearner)
    for _ in range(3):
        learner.update(batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, env_steps=8), timesteps={})
    weights = learner.module[DEFAULT_MODULE_ID].unwrapped().state_dict()
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert math.isfinite(learner._latest.update.losses.total.item())


def _raw(inputs: Tensor) -> Tensor:
    return 1.5 - inputs[:, :1] / 10


def test_trace_of_a_skill() -> None:
    env = TracedSkillVectorEnv([lambda: CountingEnv(max_steps=14)] * 2, _raw, 1, 10)
    env.reset(seed=0)
    skills = np.zeros((2, 1), np.float32)
    seen = []
    for _ in range(4):
        observations, *_, info = env.step(skills)
        seen.append((info["first_observation"][1, 0], info["last_reward"][1], observations[1, 0]))
    assert seen == [(1, 10, 10), (11, 14, 14), (0, 0, 0), (1, 10, 10)], "the third step resets"


def test_squashed_actions() -> None:
    low = CountingEnv()
    env = SkillVectorEnv([lambda: low], squashed(_raw), 1, 10)
    env.reset(seed=0)
    env.step(np.zeros((1, 1), np.float32))
    np.testing.assert_allclose(np.concatenate(low.actions), np.tanh(1.5 - np.arange(10) / 10), rtol=1e-5)


def test_an_agent_with_all_quirks_is_evaluated(pretrained_run: Experiment) -> None:
    config = algorithm_config(with_values(pretrained_run, {"algorithm.type": "skild_reference"}))
    episodes = play(Agent(config, config.build_module()), 2, seed=0, deterministic=True)
    assert all(len(episode.actions) == episode.env_steps for episode in episodes)


# --- in a run ---

SHIFTED: dict[str, Any] = {"type": "skild_reference", "reference_quirks": ["shifted_transitions"]}


def test_shifted_transitions_reach_the_replay(build: Build) -> None:
    algo = build(environment=VARIED, **SHIFTED, total_env_steps=1_500)
    finish(algo)
    starts = algo.replay.recent()["obs"][:, 0]
    assert set(np.unique(starts % 5)) <= {0, 1}
    assert (starts[starts > 0] % 5 == 1).all()


def test_shifted_transitions_wait_for_long_episodes(build: Build) -> None:
    algo = build(
        environment={"id": "counting_env:CountingEnv", "kwargs": {"max_steps": 400}},
        **SHIFTED,
        warmup_skill_steps=20,
        total_env_steps=4_000,
    )
    finish(algo)
    assert algo.counts["updates"] > 0


def test_decoder_is_squashed_by_the_quirk_only(pretrained_run: Experiment) -> None:
    """In training as in evaluation."""
    decoder = load_decoder(Pretrained.open(run_folder(pretrained_run)).skill_prior)
    skill, ends = [5.0, -10.0, 20.0], []
    for quirks, bounded in (([], lambda action: np.clip(action, -1, 1)), (["squashed_decoder"], np.tanh)):
        algorithm = {"type": "skild_reference", "reference_quirks": quirks}
        config = algorithm_config(with_values(pretrained_run, {"algorithm": algorithm}))
        config.validate()
        evaluated = evaluation_env(Agent(config, config.build_module()), 1)
        for env in (make_runner_env(config.env_config), evaluated):
            (start,), _ = env.reset(seed=[0])
            position = start[0]
            for _ in range(5):
                action = decoder(torch.tensor([[position, start[1], *skill]], dtype=torch.float32)).item()
                position += 0.1 * bounded(action)
            ends.append(env.step(np.array([skill], np.float32))[0][0, 0])
            assert ends[-1] == pytest.approx(position, abs=1e-5)
            env.close()
    assert ends[0] != pytest.approx(ends[2], abs=1e-3)


def test_all_quirks_at_once_train(build: Build) -> None:
    algo = build(environment=VARIED, type="skild_reference", discriminator_updates=0.5, env_reward_weight=0.0)
    finish(algo)
    assert all(torch.isfinite(value).all() for value in module_weights(algo).values())
