"""Random windows of H transitions from weighted sources, gathered from tensors in memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skild_ray.data.trajectories import Trajectories


class WindowSampler:
    """Draws a source with probability weight / sum of weights, then one of its windows uniformly.

    A window is H consecutive states and the H actions taken in them, all of one episode.

    Args:
        sources: trajectories of equal dimensions.
        weights: one positive number a source.
        horizon: H, in transitions.
        seed: of the sampler's own generator.
        device: where the data lie and the batches are made.

    Raises:
        DataError: if there is no source, dimensions differ, or a source has no episode of `horizon` transitions.
    """

    def __init__(
        self,
        sources: Sequence[Trajectories],
        weights: Sequence[float],
        horizon: int,
        seed: int,
        device: str | torch.device = "cpu",
    ):
        if len(sources) != len(weights):
            raise ValueError(f"{len(sources)} sources but {len(weights)} weights")
        if horizon < 1 or not all(weight > 0 for weight in weights):
            raise ValueError(f"horizon and weights must be positive, got {horizon} and {list(weights)}")
        everything = Trajectories.concatenate(sources)
        first_rows = np.cumsum([0, *(len(source) for source in sources[:-1])])
        starts = [source.window_starts(horizon) + row for source, row in zip(sources, first_rows, strict=True)]
        self._starts = torch.from_numpy(np.concatenate(starts)).to(device)
        self._counts = torch.tensor([len(part) for part in starts])
        self._firsts = self._counts.cumsum(0) - self._counts
        self._weights = torch.tensor(weights, dtype=torch.float64)
        self._states = torch.from_numpy(everything.observations).to(device)
        self._actions = torch.from_numpy(everything.actions).to(device)
        self._offsets = torch.arange(horizon, device=device)
        # On the CPU whatever the device is: the same seed draws the same windows everywhere.
        self._generator = torch.Generator().manual_seed(seed)

    @property
    def num_windows(self) -> int:
        """Windows of all sources."""
        return len(self._starts)

    def sample(self, batch: int) -> tuple[Tensor, Tensor]:
        """`batch` random windows: states [batch, H, observation_dim] and actions [batch, H, action_dim]."""
        return self._gather(self.draw(batch))

    def draw(self, batch: int) -> Tensor:
        """Numbers [batch] of random windows, counted through all sources in order."""
        source = torch.multinomial(self._weights, batch, replacement=True, generator=self._generator)
        uniform = torch.rand(batch, dtype=torch.float64, generator=self._generator)
        return self._firsts[source] + (uniform * self._counts[source]).long()

    def all_windows(self, limit: int) -> tuple[Tensor, Tensor]:
        """At most `limit` windows, the same ones each time: all of them in order if they are so few.

        Otherwise each source gives its share of `limit` by weight, at least one, evenly spread over its windows.
        """
        if limit >= self.num_windows:
            return self._gather(torch.arange(self.num_windows))
        shares = (limit * self._weights / self._weights.sum()).long().clamp(min=1)
        picks = [
            first + torch.arange(share) * count // share
            for first, count, share in zip(self._firsts, self._counts, shares.minimum(self._counts), strict=True)
        ]
        return self._gather(torch.cat(picks))

    def state_dict(self) -> dict[str, Any]:
        """State of the generator: a sampler that loads it draws the same windows from here on."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._generator.set_state(state["generator"])

    def _gather(self, windows: Tensor) -> tuple[Tensor, Tensor]:
        rows = self._starts[windows.to(self._starts.device)].unsqueeze(1) + self._offsets
        return self._states[rows], self._actions[rows]
