"""The bare torch loop that RLlib's learner is compared with does the same thing."""

from pathlib import Path

import pytest
import torch
from pretrained import publish_pretrained, tiny_experiment
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from benchmarks.bare_updates import BareLearner
from skild_ray.algorithms.skild.skild import SkiLD, SkiLDConfig
from skild_ray.algorithms.train import algorithm_config, module_weights

SIZE = 32


@pytest.mark.parametrize("kl_in_target", [False, True])
def test_update_changes_weights_as_the_learner_does(tmp_path: Path, ray_session: None, kl_in_target: bool) -> None:
    experiment = tiny_experiment(tmp_path, algorithm={"kl_in_target": kl_in_target, "warmup_skill_steps": 10**6})
    publish_pretrained(experiment)
    algo = SkiLDConfig.from_experiment(experiment).build_algo()
    assert isinstance(algo, SkiLD) and algo.learner_group is not None
    try:
        algo.train()
        batch = {name: torch.from_numpy(column) for name, column in algo.replay.sample(SIZE).items()}
        module = algorithm_config(experiment).build_module()
        module.load_state_dict(module_weights(algo))
        before = {name: value.clone() for name, value in module.state_dict().items()}

        torch.manual_seed(0)
        algo.learner_group.update(batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(dict(batch))}, env_steps=SIZE))
        expected = module_weights(algo)
        torch.manual_seed(0)
        BareLearner(module).update(batch)
    finally:
        algo.stop()

    moved = {name for name, value in expected.items() if not torch.equal(value, before[name])} - {"num_updates"}
    assert {name.split(".")[0] for name in moved} == {"policy", "critics", "target_critics"}
    found = module.state_dict()
    for name in moved:
        torch.testing.assert_close(found[name], expected[name], msg=lambda text, name=name: f"{name}: {text}")


def test_settings_it_does_not_know_are_refused(tmp_path: Path) -> None:
    experiment = tiny_experiment(tmp_path, algorithm={"learn_alphas": True})
    publish_pretrained(experiment)
    with pytest.raises(ValueError, match="fixed alphas"):
        BareLearner(algorithm_config(experiment).build_module())
