"""What an update of RLPD costs beside its matrix products: `python -m benchmarks.critics`.

The products alone are those of the same layers, forward and backward, in a bare torch loop, with nothing between them:
no normalisation, activation, loss, optimiser or target network. Everything is measured in turn, in one process.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from gymnasium.spaces import Box
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from torch import Tensor

from benchmarks.measure import (
    Measurement,
    Rates,
    alternate,
    check_folder,
    medians,
    rate,
    run_command,
    show_rates,
    show_ratios,
    write_json,
)
from skild_ray.algorithms.rlpd.losses import rlpd_losses
from skild_ray.algorithms.rlpd.rlpd import RLPDConfig
from skild_ray.algorithms.rlpd.rlpd_rl_module import RLPDTorchRLModule
from skild_ray.algorithms.rlpd.settings import RLPDSettings

LABELS = {
    "products": "matrix products alone",
    "bare": "update in a plain torch loop",
    "learner": "update through RLlib's learner",
}
UPDATES = 8
"""Of a call of the learner, as `OffPolicy` makes them."""


class BareLearner:
    """`rlpd_losses` with the optimisers and target update of `RLPDTorchLearner`, and nothing else."""

    def __init__(self, module: RLPDTorchRLModule) -> None:
        self.module = module
        groups = (module.critics.parameters(), module.policy.parameters(), [module.log_alpha])
        rate = module.settings.learning_rate
        self._optimizers = [torch.optim.Adam(list(group), lr=rate, fused=True) for group in groups]
        self._entropy = module.settings.entropy_target(module.action_space.shape[0])

    def update(self, batch: dict[str, Tensor]) -> None:
        """One step of critics, and of policy and temperature where they are due, then of the target critics."""
        module = self.module
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        rlpd_losses(batch, module._forward_train(batch), self._entropy).losses.total.backward()
        for optimizer in self._optimizers:
            optimizer.step()
        module.num_updates += 1
        module.target_critics.follow(module.critics, module.settings.target_update_rate)


class Products:
    """The matrix products of an update of critics, policy and temperature, of random numbers."""

    def __init__(self, settings: RLPDSettings, observation_dim: int, action_dim: int) -> None:
        hidden, rows = [settings.hidden] * settings.layers, settings.batch_size
        critic, policy = [observation_dim + action_dim, *hidden, 1], [observation_dim, *hidden, 2 * action_dim]
        self._pairs: list[tuple[Tensor, Tensor]] = [
            *_forward(settings.critics, rows, critic),
            *_backward(settings.critics, rows, critic, weights=True, inputs=False),
            *_forward(settings.critic_subset, rows, critic),
            *_forward(1, rows, policy),
            *_forward(1, rows, policy),
            *_backward(1, rows, policy, weights=True, inputs=False),
            *_forward(settings.critics, rows, critic),
            *_backward(settings.critics, rows, critic, weights=False, inputs=True),
        ]

    def __call__(self) -> None:
        for left, right in self._pairs:
            torch.bmm(left, right)


def _forward(members: int, rows: int, widths: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
    for width, following in pairwise(widths):
        yield torch.randn(members, rows, width), torch.randn(members, width, following)


def _backward(
    members: int, rows: int, widths: Sequence[int], weights: bool, inputs: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Gradients of the weights, if asked for, and of every layer's inputs, the network's own if asked for."""
    for layer, (width, following) in enumerate(pairwise(widths)):
        gradient = torch.randn(members, rows, following)
        if weights:
            yield torch.randn(members, rows, width).transpose(1, 2), gradient
        if layer or inputs:
            yield gradient, torch.randn(members, width, following).transpose(1, 2)


def measure(settings: RLPDSettings, observation_dim: int, action_dim: int, seconds: float, rounds: int) -> Rates:
    """Updates a second, by the keys of LABELS."""
    spaces = (
        Box(-np.inf, np.inf, (observation_dim,), np.float32),
        Box(-1.0, 1.0, (action_dim,), np.float32),
    )
    learner = (
        RLPDConfig()
        .environment("none")
        .demonstrations("none")
        .training(**settings.model_dump())
        .build_learner(spaces={DEFAULT_MODULE_ID: spaces})
    )
    learner.build()
    bare = BareLearner(learner.module[DEFAULT_MODULE_ID].unwrapped())
    rows = UPDATES * settings.batch_size
    batch = {
        "obs": torch.randn(rows, observation_dim),
        "next_obs": torch.randn(rows, observation_dim),
        "actions": 2 * torch.rand(rows, action_dim) - 1,
        "returns": torch.rand(rows),
        "bootstrap": torch.full((rows,), settings.discount),
    }
    first = {name: column[: settings.batch_size] for name, column in batch.items()}
    products = Products(settings, observation_dim, action_dim)

    def multiply() -> int:
        products()
        return 1

    def update_bare() -> int:
        bare.update(first)
        return 1

    def update_learner() -> int:
        learner.update(
            batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(batch)}, env_steps=rows),
            timesteps={},
            minibatch_size=settings.batch_size,
            num_epochs=1,
        )
        return UPDATES

    works = {"products": multiply, "bare": update_bare, "learner": update_learner}
    rates = alternate([_measurement(name, work) for name, work in works.items()], seconds, rounds)
    show_rates(f"{settings.critics} critics, batch {settings.batch_size}, {rounds} rounds", LABELS, rates)
    return medians(rates)


def _measurement(name: str, work: Callable[[], int]) -> Measurement:
    return lambda seconds: {name: rate(work, seconds)}


def main(
    critics: Annotated[int, typer.Option(help="size of the ensemble")] = 10,
    observations: Annotated[int, typer.Option(help="dimensions; the kitchen's by default")] = 30,
    actions: Annotated[int, typer.Option(help="dimensions; the kitchen's by default")] = 9,
    threads: Annotated[int, typer.Option(help="of torch")] = 1,
    seconds: Annotated[float, typer.Option(help="of each measurement in a round")] = 2.0,
    rounds: Annotated[int, typer.Option(help="each takes every measurement once")] = 7,
    json: Annotated[Path | None, typer.Option(help="write the results here")] = None,
) -> None:
    """Time of an update of RLPD, relative to that of its matrix products alone."""
    check_folder(json)
    torch.set_num_threads(threads)
    settings = RLPDSettings(critics=critics, critic_subset=min(2, critics))
    rates = measure(settings, observations, actions, seconds, rounds)
    ratios = {f"{LABELS[name]} / {LABELS['products']}": rates["products"] / rates[name] for name in ("bare", "learner")}
    show_ratios(ratios)
    if json:
        write_json(json, rates | {"critics": critics, "threads": threads, "ratios": ratios})


if __name__ == "__main__":
    run_command(main)
