"""RLPD's settings, and what the program knows of it."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from skild_ray.algorithms.registry import AlgorithmSpec
from skild_ray.config.algorithm import AlgorithmSettings, Rewards
from skild_ray.stages import (
    BEHAVIOURAL_CLONING,
    DEMONSTRATIONS,
    SKILL_POSTERIOR,
    SKILL_PRIOR,
    TASK_AGNOSTIC,
    DataKind,
    Stage,
)


class RLPDSettings(AlgorithmSettings):
    """RLPD on the environment's own actions: a baseline without skills, which needs no other stage by default.

    Prior data, as they were executed and with the task's rewards, are in replays of their own. Every field is also an
    argument of `RLPDConfig.training()`.

    `policy_init: cloned` is BC + RL, and `choose_by_q` is IBRL (Hu, Mirchandani and Sadigh, "Imitation Bootstrapped
    Reinforcement Learning", RSS 2024). Both need the stage `behavioural_cloning`.
    """

    type: Literal["rlpd"] = "rlpd"
    total_env_steps: int = Field(200_000, gt=0, description="environment steps to train for")
    discount: float = Field(0.99, gt=0, le=1, description="gamma of an environment step")
    n_step: int = Field(
        1, gt=0, description="rewards a target adds up before it bootstraps; where reward is rare, 10 keep values small"
    )
    reward_bias: float = Field(0.0, description="added to the reward of every environment step, as -1 for 0/1 rewards")
    hidden: int = Field(256, gt=0, description="units of each hidden layer of policy and critics")
    layers: int = Field(3, gt=0, description="hidden layers of policy and critics")
    critics: int = Field(10, gt=0, description="E, size of the ensemble")
    critic_subset: int = Field(
        2, gt=0, description="target critics, drawn for every update, whose smallest value bootstraps; 1 in AntMaze"
    )
    learning_rate: float = Field(3e-4, gt=0, description="of policy, critics and temperature")
    backup_entropy: bool = Field(
        False, description="whether targets have an entropy bonus; as published where rewards are dense"
    )
    initial_temperature: float = Field(1.0, gt=0, description="alpha at the start; it is learned from there")
    target_entropy: float | None = Field(
        None, description="of the policy, in nats; default: -1/2 for each dimension of an action"
    )
    target_update_rate: float = Field(5e-3, gt=0, le=1, description="tau of the target critics, each update")
    demonstration_share: float = Field(0.5, ge=0, lt=1, description="share of every batch drawn from demonstrations")
    task_agnostic_share: float = Field(
        0.0, ge=0, lt=1, description="share of every batch drawn from the task-agnostic data, with the task's rewards"
    )
    replays: list[str] = Field(
        [], description="folders of finished runs in the same environment, whose replays are prior data, too"
    )
    replay_share: float = Field(0.0, ge=0, lt=1, description="share of every batch drawn from them")
    shares_annealed_over: int | None = Field(
        None, gt=0, description="environment steps in which all shares fall to 0, linearly; default: they are constant"
    )
    policy_init: Literal["random", "cloned"] = Field(
        "random", description="cloned: training starts from the policy of behavioural cloning, and takes its form"
    )
    choose_by_q: bool = Field(
        False,
        description="whether the cloned policy's mean decision takes the place of the policy's where its Q is larger: "
        "in acting, evaluation included, and in the targets",
    )
    updates_per_env_step: float = Field(1.0, gt=0, description="of the critics; 20 as published, on a GPU")
    critic_updates_per_policy_update: int = Field(
        1, gt=0, description="updates of the critics for one of policy and temperature; 20 as published"
    )
    warmup_env_steps: int = Field(5_000, gt=0, description="environment steps collected before the first update")
    replay_capacity: int = Field(1_000_000, gt=0, description="transitions kept, prior data aside")

    @property
    def shares(self) -> Mapping[DataKind, float]:
        """Of every batch, of each kind of prior data."""
        return {DEMONSTRATIONS: self.demonstration_share, TASK_AGNOSTIC: self.task_agnostic_share}

    @property
    def replayed(self) -> Mapping[DataKind, Rewards]:
        return {kind: "with rewards" for kind, share in self.shares.items() if share}

    @property
    def replayed_runs(self) -> Sequence[str]:
        return self.replays

    @property
    def imitates(self) -> bool:
        """Whether it needs a cloned policy."""
        return self.choose_by_q or self.policy_init in ("cloned", "posterior")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the stages that it starts from."""
        return (BEHAVIOURAL_CLONING.name,) if self.imitates else ()

    @property
    def draws_subset(self) -> bool:
        """Whether an update bootstraps from some of the target critics only."""
        return self.critic_subset < self.critics

    def entropy_target(self, action_dim: int) -> float:
        """`target_entropy` with its default."""
        return -action_dim / 2 if self.target_entropy is None else self.target_entropy

    @model_validator(mode="after")
    def _some_experience_of_its_own(self) -> Self:
        if sum(self.shares.values()) + self.replay_share >= 1:
            raise ValueError(
                "demonstration_share, task_agnostic_share and replay_share must leave room for the policy's transitions"
            )
        if bool(self.replays) != bool(self.replay_share):
            raise ValueError("replays and replay_share need each other")
        return self

    @model_validator(mode="after")
    def _subset_of_ensemble(self) -> Self:
        if self.critic_subset > self.critics:
            raise ValueError(f"critic_subset {self.critic_subset} is more than the {self.critics} critics there are")
        return self

    @model_validator(mode="after")
    def _entropy_of_the_policy_alone(self) -> Self:
        if self.choose_by_q and self.backup_entropy:
            raise ValueError("choose_by_q has no entropy to back up: a cloned decision is none of the policy's")
        return self


class SkillRLPDSettings(RLPDSettings):
    """RLPD over skills: what SUPE is with the true rewards and no bonus (Wilcoxson et al., "Leveraging Skills from
    Unlabeled Prior Data for Efficient Online Exploration", ICML 2025). It needs the skill prior, and no demonstrations.

    A decision is a skill z of up to H environment steps. Prior data become transitions of skills by the encoder's mean.
    The policy starts as the skill prior, which therefore collects the warm-up; SUPE's is random after such a warm-up.
    Every field is also an argument of `SkillRLPDConfig.training()`.

    The cloned policy over skills is the skill posterior. With `policy_init: posterior`, two critics and no prior data
    this is SkillBC + SAC, a baseline of SkiLD's paper.
    """

    type: Literal["rlpd_skills"] = "rlpd_skills"  # type: ignore[assignment]
    discount: float = Field(
        0.99, gt=0, le=1, description="gamma of a full skill; one cut after k steps has gamma^(k/H)"
    )
    latent_bound: float = Field(3.5, gt=0, description="b of the executed skill z = b tanh(u/b), u ~ pi")
    policy_init: Literal["prior", "posterior"] = Field(  # type: ignore[assignment]
        "prior", description="the policy that training starts from"
    )
    initial_temperature: float = Field(0.05, gt=0, description="alpha at the start; 1 in SUPE's kitchen")
    target_entropy: float | None = Field(
        None, description="of z / b, in nats; default: -1/2 for each dimension of a skill"
    )
    demonstration_share: float = Field(0.0, ge=0, lt=1, description="share of every batch drawn from demonstrations")
    task_agnostic_share: float = Field(
        0.5, ge=0, lt=1, description="share of every batch drawn from the task-agnostic data, with the task's rewards"
    )
    updates_per_env_step: float = Field(
        0.2, gt=0, description="of the critics, for each environment step of a full skill; 20 as published, on a GPU"
    )

    @property
    def without_rewards(self) -> str:
        return "algorithm.type: supe learns without them, by algorithm.relabel: pred or min"

    @property
    def inputs(self) -> tuple[str, ...]:
        return (SKILL_PRIOR.name, SKILL_POSTERIOR.name) if self.imitates else (SKILL_PRIOR.name,)


SPEC = AlgorithmSpec(
    settings=RLPDSettings,
    config="skild_ray.algorithms.rlpd.rlpd:RLPDConfig",
    stage=lambda settings: Stage(
        "rlpd",
        "RLPD",
        inputs=settings.inputs,
        summary="Reinforcement learning with prior data, without skills",
        because="algorithm.type is rlpd",
    ),
    remedy="lower algorithm.learning_rate",
)
OVER_SKILLS = AlgorithmSpec(
    settings=SkillRLPDSettings,
    config="skild_ray.algorithms.rlpd.skill_rlpd:SkillRLPDConfig",
    stage=lambda settings: Stage(
        "rlpd_skills",
        "RLPD over skills",
        inputs=settings.inputs,
        summary="Reinforcement learning over skills with prior data",
        because="algorithm.type is rlpd_skills",
    ),
    remedy="lower algorithm.learning_rate",
)
