"""The offline stages: the skill model, its prior and posterior, the demo discriminator, and behavioural cloning."""

from typing import Literal

from pydantic import Field

from skild_ray.config.section import Section

Norm = Literal["batch", "layer", "none"]
MatmulPrecision = Literal["highest", "high", "medium"]


class SkillModelSettings(Section):
    """Architecture of the skill model and its heads (section 4 and appendix of the paper)."""

    horizon: int = Field(10, gt=0, description="H: environment steps a skill lasts")
    latent_dim: int = Field(10, gt=0, description="dimensions of the skill z")
    hidden: int = Field(128, gt=0, description="units of the encoder's LSTM and of the heads' hidden layers")
    decoder_hidden: int = Field(224, gt=0, description="units of the decoder's hidden layers")
    decoder_layers: int = Field(3, ge=0, description="hidden blocks of the decoder")
    head_layers: int = Field(6, ge=0, description="hidden blocks of prior, posterior and policy")
    decoder_norm: Norm = "layer"
    head_norm: Norm = "layer"
    standardize: bool = Field(True, description="observations to zero mean and unit std of the task-agnostic data")


class Training(Section):
    """How an offline stage is trained. One iteration is one gradient step on one batch."""

    iterations: int = Field(gt=0)
    batch_size: int = Field(128, gt=0, description="windows (stages 1, 2) or states of each class (stage 3)")
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["constant", "cosine"] = Field("cosine", description="learning rates over the iterations")
    warmup_iterations: int = Field(100, ge=0, description="linear warm-up of the learning rate")
    weight_decay: float = Field(0.0, ge=0)
    gradient_clip: float | None = Field(10.0, gt=0, description="largest global gradient norm")
    matmul_precision: MatmulPrecision = Field(
        "highest", description="of products of float32 matrices; high: TF32, medium: bfloat16, where a processor has it"
    )
    weight_average: float = Field(
        0.0, ge=0, lt=1, description="decay of the running mean of the weights, which is validated and kept; 0: none"
    )
    validation_interval: int = Field(200, gt=0, description="iterations between validations")
    validation_samples: int = Field(4096, gt=0, description="windows or states a validation looks at, at most")
    patience: int | None = Field(None, gt=0, description="stop after so many validations without improvement")
    checkpoint_interval_s: float = Field(30.0, gt=0, description="seconds between checkpoints")


class SkillPriorSettings(Training):
    """Stage 1: encoder, decoder and prior on the task-agnostic windows."""

    iterations: int = Field(8_000, gt=0)
    learning_rate: float = Field(2e-3, gt=0)
    matmul_precision: MatmulPrecision = Field("medium", description="as in the other stages")
    muon_learning_rate: float | None = Field(
        0.02,
        gt=0,
        description="rate of Muon for the hidden layers of encoder and decoder, which takes a fraction of AdamW's "
        "iterations for a precise decoder; null: AdamW, as elsewhere",
    )
    kl_weight: float = Field(
        1e-4,
        ge=0,
        description="beta, weight of KL(q(z|s,a) || N(0, I)) averaged over dimensions, the price of what a skill says. "
        "1e-4: many bits, with which the decoder repeats a window to a few hundredths of the range of actions, as "
        "grasping needs; 0.1: a few bits, where the states say the rest (maze)",
    )


class SkillPosteriorSettings(Training):
    """Stage 2: posterior q(z|s) on the demonstrations, encoder and decoder frozen."""

    iterations: int = Field(4_000, gt=0)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    weight_average: float = Field(
        0.999, ge=0, lt=1, description="as in stage 1; a slow average starts at the prior and overfits less"
    )
    observation_noise: float = Field(
        0.5,
        ge=0,
        description="std of the noise on the head's input, as a share of how far each observation moves within a "
        "skill: a posterior that is sure of every millimetre is lost a few millimetres beside the demonstrated path",
    )
    init_from_prior: bool = Field(
        True, description="start from the prior's weights, which know what to do beside that path, not from random ones"
    )


class DemoDiscriminatorSettings(Training):
    """Stage 3: D(s), demonstration states (label 1) against task-agnostic states (label 0)."""

    iterations: int = Field(3_000, gt=0)
    batch_size: int = Field(256, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    hidden: int = Field(32, gt=0)
    layers: int = Field(3, ge=0)
    label_smoothing: float = Field(0.05, ge=0, lt=0.5, description="targets are 1 - x and x")
    observation_noise: float = Field(0.1, ge=0, description="std added to the input, in standardised units")


class BehaviouralCloningSettings(Training):
    """Behavioural cloning: a policy pi(a|s) over actions on the demonstrations, for `algorithm.type: bc`."""

    iterations: int = Field(8_000, gt=0)
    batch_size: int = Field(256, gt=0, description="states")
    hidden: int = Field(256, gt=0, description="units of the hidden layers")
    layers: int = Field(2, ge=0, description="hidden blocks")
    norm: Norm = "layer"
    observation_noise: float = Field(3e-3, ge=0, description="std added to the input, in standardised units")
