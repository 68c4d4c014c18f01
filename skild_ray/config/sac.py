"""Plain SAC in place of stages 1 to 4."""

from typing import Literal

from pydantic import Field

from skild_ray.config.section import Section


class SACSettings(Section):
    """Instead of SkiLD: plain soft actor-critic on the environment's own actions, a baseline without skills.

    The demonstrations, as they were executed and with the task's rewards, are in a replay of their own. Every field is
    also an argument of `SACConfig.training()`.
    """

    total_env_steps: int = Field(200_000, gt=0, description="environment steps to train for")
    discount: float = Field(0.99, gt=0, le=1, description="gamma of an environment step")
    n_step: int = Field(
        1, gt=0, description="rewards a target adds up before it bootstraps; where reward is rare, 10 keep values small"
    )
    hidden: int = Field(256, gt=0, description="units of the two hidden layers of policy and critics")
    critic_norm: Literal["layer", "none"] = Field(
        "layer", description="without it, critics often diverge beside a replay of demonstrations"
    )
    learning_rate: float = Field(3e-4, gt=0, description="of policy, critics and temperature")
    initial_temperature: float = Field(1.0, gt=0, description="alpha at the start; it is learned from there")
    target_update_rate: float = Field(5e-3, gt=0, le=1, description="tau of the target critics, each update")
    batch_size: int = Field(256, gt=0, description="transitions an update")
    demonstration_share: float = Field(0.5, gt=0, lt=1, description="share of every batch drawn from demonstrations")
    updates_per_env_step: float = Field(0.5, gt=0, description="customary is 1, at twice the cost")
    warmup_env_steps: int = Field(1_000, gt=0, description="environment steps collected before the first update")
    replay_capacity: int = Field(1_000_000, gt=0, description="transitions kept, demonstrations aside")
    synchronous: bool = Field(False, description="sample, then learn: slower, reproducible bit for bit with one runner")
