"""What an off-policy algorithm learns from, as `OffPolicy` uses it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

from skild_ray.algorithms.replay import Replay


class Experience(Protocol):
    """Stores what env runners bring, and draws the batches that the learners get. It knows neither."""

    replay: Replay
    """The policy's own transitions."""

    def add(self, chunks: Sequence[SingleAgentEpisode]) -> None:
        """Store what came with one fragment: chunks of episodes, none of them empty, in order.

        Each continues the chunk of the same `id_` before it, if there was one.
        """

    def draw(self, updates: int, size: int) -> dict[str, NDArray]:
        """The columns of `updates` batches of `size` rows, one batch after another; [updates * size, ...] each."""

    def forget_open_episodes(self) -> None:
        """Expect no continuation of the episodes that have not ended: their runners are gone."""

    def get_state(self) -> dict[str, Any]:
        """Everything that decides what is drawn from here on, for a checkpoint."""

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `get_state` was called.

        Raises:
            ArtifactError: the state belongs to other artifacts.
        """
