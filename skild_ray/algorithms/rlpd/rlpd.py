"""RLPD as an RLlib algorithm: its configuration."""

from collections.abc import Mapping
from typing import Any, Self

from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from skild_ray.algorithms.off_policy import OffPolicy
from skild_ray.algorithms.off_policy_config import Pace
from skild_ray.algorithms.over_skills import PretrainedConfig
from skild_ray.algorithms.prior_data import PriorDataConfig, PriorDataExperience
from skild_ray.algorithms.rlpd.rlpd_learner import RLPDTorchLearner
from skild_ray.algorithms.rlpd.rlpd_rl_module import RLPDTorchRLModule
from skild_ray.algorithms.rlpd.settings import RLPDSettings
from skild_ray.algorithms.standardised import standardise_by
from skild_ray.algorithms.typing import takes
from skild_ray.errors import ArtifactError
from skild_ray.runs.artifacts import require_hash
from skild_ray.stages import BEHAVIOURAL_CLONING, train_command


class RLPDConfig(PretrainedConfig, PriorDataConfig):
    """Configuration of `RLPD`.

        config = (
            RLPDConfig()
            .environment("skild_ray/Kitchen-v0", env_config={"task": "mkls"})
            .demonstrations("kitchen/teleop-complete15-v2")
            .training(total_env_steps=200_000)
        )
        algo = config.build_algo()

    `training` takes every field of `RLPDSettings`, which documents them, and nothing unknown. What needs a cloned
    policy also needs `pretrained`, with the folder of a run whose stage `behavioural_cloning` is finished.
    """

    Settings = RLPDSettings
    version = 1
    settings: RLPDSettings

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or RLPD)
        # An update of the critics alone leaves the policy out, and learners have to know before they add up gradients.
        self.torch_ddp_kwargs = {"find_unused_parameters": True}

    @takes(RLPDSettings)
    def training(self, **kwargs: Any) -> Self:  # type: ignore[override]
        """Set fields of `RLPDSettings`; RLlib takes the rest, and refuses what is unknown."""
        return super().training(**kwargs)

    def pace(self) -> Pace:
        settings = self.settings
        return Pace(
            total_env_steps=settings.total_env_steps,
            horizon=self.horizon,
            batch_size=settings.batch_size,
            samples_per_decision=settings.updates_per_env_step * self.horizon * settings.batch_size,
            warmup_decisions=max(1, settings.warmup_env_steps // self.horizon),
            synchronous=settings.synchronous,
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """Of a batch, see `Replay`."""
        last = ("later_states", "later_weights") if self.settings.backup_entropy else ("next_obs",)
        return ("obs", "actions", "returns", "bootstrap", *last)

    def build_experience(self) -> PriorDataExperience:
        settings = self.settings
        return self.prior_data_experience(
            settings.shares,
            replay_share=settings.replay_share,
            annealed_over=settings.shares_annealed_over,
            reward_bias=settings.reward_bias,
            capacity=settings.replay_capacity,
            columns=self.columns,
            n_step=settings.n_step,
            discount=settings.discount,
            later=settings.backup_entropy,
            walk_actions="n_step_actions" in self.columns,
            inputs={artifact.stage: artifact.model_hash for artifact in self.inputs},
        )

    def require_inputs(self, experience: Mapping[str, Any]) -> None:
        for artifact in self.inputs:
            require_hash("the checkpoint", experience["inputs"], artifact, "restore that one, or train again")

    def without_rl(self) -> Mapping[str, Self]:
        """The policy that training starts from, if it is not a random one."""
        return {} if self.settings.policy_init == "random" else {"initial": self.unchosen()}

    def unchosen(self) -> Self:
        """Without `choose_by_q`, since critics that know nothing yet choose at random."""
        return self.copy(copy_frozen=False).training(choose_by_q=False)

    def validate(self) -> None:
        super().validate()
        if BEHAVIOURAL_CLONING.name in self.input_stages:
            self._require_dimensions()

    def _require_dimensions(self) -> None:
        """Raise ArtifactError unless the cloned policy has the dimensions of the environment."""
        (cloned,) = self.inputs
        theirs = cloned.facts["observation_dim"], cloned.facts["action_dim"]
        ours = tuple(space.shape[0] for space in self.spaces())
        if theirs != ours:
            raise ArtifactError(
                f"{cloned.path}: was cloned with {theirs[0]} observations and {theirs[1]} actions, and "
                f"{self.low_level.id} has {ours[0]} and {ours[1]}; train it again: {train_command(cloned.stage)}"
            )

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=RLPDTorchRLModule)

    def get_default_learner_class(self) -> type:
        return RLPDTorchLearner


class RLPD(OffPolicy):
    """Learning over the environment's own actions: a decision is one environment step.

    Prior data are in replays of their own, from which a fixed share of every batch comes, by default half of it from
    the demonstrations (symmetric sampling): they are never overwritten, and get rarer only with `shares_annealed_over`.

    Observations are standardised by the statistics of the prior data's states, which are part of the weights: a
    checkpoint brings its own. Without prior data they enter as they are, and a cloned policy keeps its own statistics.
    """

    config: RLPDConfig
    experience: PriorDataExperience

    def setup(self, config: RLPDConfig) -> None:
        super().setup(config)
        if config.settings.policy_init == "random":
            standardise_by(self.learner_group, self.experience.prior_observations())

    @classmethod
    def get_default_config(cls) -> RLPDConfig:
        return RLPDConfig()
