"""The benchmark of RLPD's update counts its matrix products, and no others."""

import torch
from gymnasium.spaces import Box
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.critics import BareLearner, Products
from skild_ray.algorithms.rlpd.rlpd import RLPDConfig
from skild_ray.algorithms.rlpd.settings import RLPDSettings


def test_products_are_those_of_an_update() -> None:
    settings = RLPDSettings(critics=5, hidden=16, layers=3, batch_size=8)
    module = (
        RLPDConfig()
        .get_default_rl_module_spec()
        .module_class(
            observation_space=Box(-1, 1, (4,)),
            action_space=Box(-1, 1, (2,)),
            inference_only=False,
            model_config={"algorithm": settings.model_dump()},
        )
    )
    batch = {"obs": torch.randn(8, 4), "next_obs": torch.randn(8, 4), "actions": torch.rand(8, 2)}
    batch |= {"returns": torch.rand(8), "bootstrap": torch.rand(8)}
    bare, products = BareLearner(module), Products(settings, 4, 2)
    with FlopCounterMode(display=False) as update:
        bare.update(batch)
    with FlopCounterMode(display=False) as alone:
        products()
    assert update.get_total_flops() == alone.get_total_flops()
