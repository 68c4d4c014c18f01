"""Every private name of RLlib 2.60 that this package uses, and why: the only file to look at for a new release of Ray.

`PRIVATE` lists them; a test asserts that each still exists. Everything else here gives them public names.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray
from ray.rllib.algorithms import algorithm as rllib_algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.learner.learner import Learner
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.actor_manager import FaultTolerantActorManager
from ray.util.placement_group import get_current_placement_group
from torch import Tensor

PRIVATE: Sequence[tuple[Any, str, str]] = (
    (AlgorithmConfig, "_model_config_auto_includes", "the only way to hand settings to an RLModule by default"),
    (Learner, "_learner_index", "each learner of a group needs noise of its own"),
    (Learner, "_weights_seq_no", "weights older than those it holds are dropped, also where a checkpoint brings them"),
    (Learner, "_params", "gradients reach their parameters by RLlib's references to these"),
    (SingleAgentEnvRunner, "_weights_seq_no", "as for the learner"),
    (SingleAgentEnvRunner, "_seed", "a rebuilt environment must not play its first episodes again"),
    (SingleAgentEnvRunner, "_needs_initial_reset", "the only way to drop the episodes in progress"),
    (SingleAgentEnvRunner, "_try_env_reset", "RLlib rebuilds an environment that raises for ever, with the same seed"),
    (SingleAgentEnvRunner, "_try_env_step", "the same"),
    (EnvRunnerGroup, "_worker_manager", "its public methods wait for lost runners, or for all of them"),
    (EnvRunnerGroup, "_remote_args", "options of the runners' actors; RLlib has none for their placement"),
    (EnvRunnerGroup, "_remote_config", "what a runner is made from; by reference it is lost with that one's node"),
    (EnvRunnerGroup, "_remote_config_obj_ref", "that reference"),
    (EnvRunnerGroup, "_setup", "is where these are used"),
    (FaultTolerantActorManager, "_filter_calls_by_tag", "gives the pending calls, to wait for the first of them"),
    (rllib_algorithm, "EnvRunnerGroup", "replaced while an algorithm is set up, which names this class itself"),
)
"""Owner, name and reason of each."""


class ModelSettingsConfig(AlgorithmConfig):
    """An algorithm's configuration that gives its RLModule `model_settings` as `model_config`."""

    @property
    def model_settings(self) -> dict[str, Any]:
        """Plain values."""
        raise NotImplementedError

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return self.model_settings


class InterceptedEnvRunner(SingleAgentEnvRunner):
    """RLlib's env runner with public hooks around its environment.

    A subclass gives `reset_environment` and `step_environment`, which may return `ENV_STEP_FAILURE`.
    """

    @property
    def environment_seed(self) -> int:
        """Seed of the next reset that begins anew."""
        return self._seed or 0

    @environment_seed.setter
    def environment_seed(self, seed: int) -> None:
        self._seed = seed

    def drop_episodes(self) -> None:
        """Begin the next request with a reset of all environments."""
        self._needs_initial_reset = True

    def reset_environment(self, seed: int | None, options: dict[str, Any] | None) -> tuple[Any, Any]:
        raise NotImplementedError

    def step_environment(self, actions: Any) -> Any:
        raise NotImplementedError

    def _try_env_reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        return self.reset_environment(seed, options)

    def _try_env_step(self, actions: Any) -> Any:
        return self.step_environment(actions)


class RunnerActors:
    """The actors of a group's remote env runners, by index."""

    def __init__(self, group: EnvRunnerGroup) -> None:
        self._manager: FaultTolerantActorManager = group._worker_manager

    @property
    def indices(self) -> list[int]:
        """All of them, lost ones included."""
        indices: list[int] = self._manager.actor_ids()
        return indices

    def handle(self, index: int) -> Any:
        """The actor's handle."""
        return self._manager.actors()[index]

    def mark(self, index: int, healthy: bool) -> None:
        """Say whether requests may be sent to a runner."""
        self._manager.set_actor_state(index, healthy=healthy)

    def pending(self, tag: str) -> list[ray.ObjectRef]:
        """The calls with this tag whose answers have not been fetched."""
        calls, _, _ = self._manager._filter_calls_by_tag(tag)
        return list(calls)


class SpreadEnvRunnerGroup(EnvRunnerGroup):
    """Env runners on as many nodes as there are, instead of on as few as will do."""

    def _setup(self, **kwargs: Any) -> None:
        self._remote_args["scheduling_strategy"] = "SPREAD"
        # By value, not by reference: a runner that is lost together with the node of a reference could never restart.
        self._remote_config_obj_ref = self._remote_config
        super()._setup(**kwargs)


@contextlib.contextmanager
def env_runner_placement(strategy: str) -> Iterator[None]:
    """Place the env runners of algorithms that are set up meanwhile.

    RLlib leaves that to the placement group it runs in. A Tune trial has one; a driver has none, and RLlib no setting.
    """
    if strategy != "SPREAD" or get_current_placement_group() is not None:
        yield
        return
    rllib_algorithm.EnvRunnerGroup = SpreadEnvRunnerGroup
    try:
        yield
    finally:
        rllib_algorithm.EnvRunnerGroup = EnvRunnerGroup


def learner_index(learner: Learner) -> int:
    """Which of its group a learner is; 0 for the only one."""
    index: int = learner._learner_index
    return index


def set_gradients(learner: Learner, gradients: Mapping[Any, Tensor]) -> None:
    """Give each parameter its gradient, by RLlib's reference to it."""
    for reference, gradient in gradients.items():
        learner._params[reference].grad = gradient


def forget_weights_version(holder: Learner | SingleAgentEnvRunner) -> None:
    """Let a learner or an env runner accept weights that are older than those it holds."""
    holder._weights_seq_no = 0
