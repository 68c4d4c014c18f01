"""Short runs of stage 4, and what is compared of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skild_ray.algorithms.skild.skild import SkiLD
from skild_ray.algorithms.train import module_weights

Build = Callable[..., SkiLD]
"""Of the fixture `build`."""
VARIED = {"id": "counting_env:RandomLengthEnv"}


def finish(algo: SkiLD, until: int | None = None) -> dict[str, Any]:
    """Train until the budget, or so many environment steps, are spent; the last result."""
    result: dict[str, Any] = {}
    for _ in range(5_000):
        if algo.finished or (until is not None and algo.counts["env_steps"] >= until):
            return result
        result = algo.train()
    raise AssertionError(f"stuck at {dict(algo.counts)}")


def num_updates(algo: SkiLD) -> int:
    return int(module_weights(algo)["num_updates"])


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def runner_policies(algo: SkiLD) -> list[dict[str, Tensor]]:
    """The policy that each env runner acts with."""
    return algo.env_runner_group.foreach_env_runner(
        lambda runner: {name: value.clone() for name, value in runner.module.state_dict().items()},
        local_env_runner=algo.env_runner_group.num_remote_env_runners() == 0,
    )
