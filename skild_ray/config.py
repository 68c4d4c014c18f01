"""The experiment: one typed schema with every default, unit and range, read from YAML.

An experiment file may name another one under `extends:` (a path relative to itself); its own keys are merged over
that one, and `--set a.b=c` overrides come last. A list replaces a list; `a.0.b` names a key of an entry. `~` at the
start of a path is the user's home.
"""

import difflib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from skild_ray.errors import ConfigError
from skild_ray.runs.storage import local_folder

Norm = Literal["batch", "layer", "none"]

Quirk = Literal[
    "ignored_fixed_alpha",
    "frozen_discriminator",
    "imitation_env_reward",
    "current_state_weights",
    "squashed_decoder",
    "shifted_transitions",
    "saturating_reward",
]


class Section(BaseModel):
    """A part of the experiment. Unknown keys are errors, values are checked and never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Environment(Section):
    """The low-level environment: anything that Gymnasium can make."""

    id: str = Field(description="Gymnasium id, or 'module:attribute' of a callable that returns an environment")
    kwargs: dict[str, Any] = Field(default={}, description="keyword arguments of the environment")


class Generate(Section):
    """Trajectories that a scripted expert makes on the spot by acting in the environment."""

    expert: str = Field(description="a name from skild_ray.worlds, or 'module:attribute' of an expert class")
    episodes: int = Field(gt=0, description="episodes to keep")
    env_kwargs: dict[str, Any] = Field(default={}, description="merged over environment.kwargs while generating")
    expert_kwargs: dict[str, Any] = Field(default={}, description="keyword arguments of the expert")
    action_noise: float = Field(0.0, ge=0, description="std of the noise on executed actions, not on those to clone")
    seed: int | None = Field(
        None, ge=0, description="of the episodes; default: the experiment's, so each seed of it has its own data"
    )


class Source(Section):
    """One source of trajectories: a stored data set or a scripted expert, exactly one of them."""

    dataset: str | None = Field(
        None,
        description="Minari id, D4RL-style .hdf5 file, folder of SPiRL-style files, or 'module:attribute:path' with "
        "another package's reader",
    )
    generate: Generate | None = None
    weight: float = Field(1.0, gt=0, description="share of the sampled windows, relative to the other sources")
    select: list[str] | None = Field(
        None, min_length=1, description="use only the episodes that solve exactly these sub-tasks in this order"
    )
    max_episodes: int | None = Field(None, gt=0, description="use the first so many of these episodes only")
    negatives: bool = Field(
        True, description="whether D's negatives include these task-agnostic states; false: they repeat demonstrations"
    )

    @field_validator("dataset")
    @classmethod
    def _at_home(cls, dataset: str | None) -> str | None:
        return dataset and os.path.expanduser(dataset)

    @model_validator(mode="after")
    def _exactly_one(self) -> "Source":
        if (self.dataset is None) == (self.generate is None):
            raise ValueError("give exactly one of 'dataset' and 'generate'")
        return self


class Data(Section):
    """Where the two kinds of trajectories come from."""

    task_agnostic: list[Source] = Field(min_length=1)
    demonstrations: list[Source] = Field(min_length=1)
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of the episodes held out, at least one")

    @field_validator("task_agnostic")
    @classmethod
    def _some_negatives(cls, sources: list[Source]) -> list[Source]:
        if not any(source.negatives for source in sources):
            raise ValueError("one source at least must have 'negatives: true', for the discriminator to learn from")
        return sources


class SkillModel(Section):
    """Architecture of the skill model and its heads (section 4 and appendix of the paper)."""

    horizon: int = Field(10, gt=0, description="H: environment steps a skill lasts")
    latent_dim: int = Field(10, gt=0, description="dimensions of the skill z")
    hidden: int = Field(128, gt=0, description="units of the encoder's LSTM and of the heads' hidden layers")
    decoder_hidden: int = Field(128, gt=0, description="units of the decoder's hidden layers")
    decoder_layers: int = Field(5, ge=0, description="hidden blocks of the decoder")
    head_layers: int = Field(6, ge=0, description="hidden blocks of prior, posterior and policy")
    decoder_norm: Norm = "batch"
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
    matmul_precision: Literal["highest", "high", "medium"] = Field(
        "highest", description="of products of float32 matrices; high: TF32, medium: bfloat16, where a processor has it"
    )
    weight_average: float = Field(
        0.0, ge=0, lt=1, description="decay of the running mean of the weights, which is validated and kept; 0: none"
    )
    validation_interval: int = Field(200, gt=0, description="iterations between validations")
    validation_samples: int = Field(4096, gt=0, description="windows or states a validation looks at, at most")
    patience: int | None = Field(None, gt=0, description="stop after so many validations without improvement")
    checkpoint_interval_s: float = Field(30.0, gt=0, description="seconds between checkpoints")


class SkillPrior(Training):
    """Stage 1: encoder, decoder and prior on the task-agnostic windows."""

    iterations: int = Field(8_000, gt=0)
    muon_learning_rate: float | None = Field(
        None,
        gt=0,
        description="rate, about 0.02, of Muon for the hidden layers of encoder and decoder; null: AdamW, as elsewhere",
    )
    kl_weight: float = Field(1e-3, ge=0, description="beta, weight of KL(q(z|s,a) || N(0, I)) averaged over dimensions")


class SkillPosterior(Training):
    """Stage 2: posterior q(z|s) on the demonstrations, encoder and decoder frozen."""

    iterations: int = Field(8_000, gt=0)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    observation_noise: float = Field(3e-3, ge=0, description="std added to the head's input, in standardised units")
    init_from_prior: bool = Field(False, description="start from the prior's weights instead of random ones")


class DemoDiscriminator(Training):
    """Stage 3: D(s), demonstration states (label 1) against task-agnostic states (label 0)."""

    iterations: int = Field(3_000, gt=0)
    batch_size: int = Field(256, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    hidden: int = Field(32, gt=0)
    layers: int = Field(3, ge=0)
    label_smoothing: float = Field(0.05, ge=0, lt=0.5, description="targets are 1 - x and x")
    observation_noise: float = Field(0.1, ge=0, description="std added to the input, in standardised units")


class Algorithm(Section):
    """Stage 4, SkiLD: an off-policy actor-critic over skills (section 4.3 and algorithm 1 of the paper).

    A skill step is one decision z, worth up to H environment steps. Every field is also an argument of
    `SkiLDConfig.training()`.
    """

    total_env_steps: int = Field(300_000, gt=0, description="environment steps to train for")
    discount: float = Field(
        0.99, gt=0, le=1, description="gamma of a full skill; one cut after k steps has gamma^(k/H)"
    )
    n_step: int = Field(8, gt=0, description="skills summed before bootstrapping")
    env_reward_weight: float = Field(
        0.9, ge=0, le=1, description="lambda in (1 - lambda) r_D + lambda r_env; 0: imitation"
    )

    guidance: Literal["support", "prior", "posterior"] = Field(
        "support", description="weight of the posterior: D(s), 0 (SPiRL: the prior alone) or 1; the prior has the rest"
    )
    policy_init: Literal["prior", "posterior"] = "posterior"
    policy_init_scale: float = Field(1.0, gt=0, description="factor on the initial policy's sigma")
    latent_squash: Literal["scaled_tanh", "tanh", "clip", "none"] = Field(
        "scaled_tanh", description="z from u ~ pi: b tanh(u/b), b tanh(u), clip(u, -b, b) or u"
    )
    latent_bound: float = Field(3.5, gt=0, description="b above")

    alpha: float = Field(2.0, ge=0, description="weight of KL(pi || prior), or its start where it is learned")
    alpha_q: float = Field(2.0, ge=0, description="weight of KL(pi || posterior), or its start where it is learned")
    learn_alphas: bool = Field(False, description="dual descent of alpha and alpha_q on the two target divergences")
    target_divergence: float = Field(10.0, gt=0, description="delta, target KL(pi || prior) in nats")
    target_divergence_q: float = Field(1.0, gt=0, description="delta_q, target KL(pi || posterior) in nats")
    kl: Literal["analytic", "sampled"] = "analytic"
    kl_samples: int = Field(10, gt=0, description="samples of the sampled KL")
    kl_clamp: float | None = Field(None, gt=0, description="clamp of the KL to [-x, x]; the reference has 100")
    kl_in_target: bool = Field(
        False, description="subtract the weighted KL at every later state of the walk from the critic's target"
    )
    posterior_scale: float = Field(1.0, gt=0, description="factor on the posterior's sigma inside the KL")
    sigma_floor: float = Field(0.0, ge=0, description="smallest sigma of prior and posterior inside the KL")

    critic_hidden: int = Field(256, gt=0)
    critic_layers: int = Field(2, ge=0, description="hidden blocks of each of the two critics")
    critic_norm: Literal["layer", "none"] = "layer"
    target_update_rate: float = Field(5e-3, gt=0, le=1, description="tau of the target critics, each update")

    policy_lr: float = Field(3e-4, gt=0)
    critic_lr: float = Field(3e-4, gt=0)
    alpha_lr: float = Field(3e-4, gt=0)
    discriminator_lr: float = Field(3e-4, gt=0)
    gradient_clip: float | None = Field(1.0, gt=0, description="largest gradient norm of each optimiser's parameters")
    batch_size: int = Field(256, gt=0, description="skill transitions an update")
    samples_per_skill_step: float = Field(
        128.0, gt=0, description="replayed transitions for each new one; 128: reference"
    )
    demonstration_share: float = Field(
        0.0, ge=0, lt=1, description="share of every batch drawn from the demonstrations, their skills by the encoder"
    )
    warmup_skill_steps: int = Field(500, gt=0, description="skill steps collected before the first update")
    critic_warmup_updates: int = Field(1_000, ge=0, description="first updates that leave policy and alphas alone")
    replay_capacity: int = Field(1_000_000, gt=0, description="skill transitions kept")

    discriminator_reward: Literal["logit", "log_d"] = Field(
        "logit", description="r_D: log D - log(1 - D), or log D, which is never positive"
    )
    discriminator_reward_min: float = Field(-5.0, description="clip of r_D from below")
    discriminator_reward_max: float = Field(5.0, description="clip of r_D from above")
    discriminator_updates: float | None = Field(
        None,
        ge=0,
        le=1,
        description="discriminator updates a learner update; default: 0.2 in imitation, else 0, frozen",
    )
    discriminator_weight_decay: float = Field(1e-2, ge=0, description="of the online discriminator")
    discriminator_label_smoothing: float = Field(0.05, ge=0, lt=0.5)
    discriminator_noise: float = Field(0.1, ge=0, description="std added to its inputs online, in standardised units")

    synchronous: bool = Field(False, description="sample, then learn: slower, reproducible bit for bit with one runner")
    reference_quirks: list[Quirk] = Field(
        [], description="defects of the released code to restore, by name; true: all of them"
    )

    @property
    def discriminator_rate(self) -> float:
        """`discriminator_updates` with its default, 0 with the quirk that freezes D."""
        if "frozen_discriminator" in self.reference_quirks:
            return 0.0
        default = 0.2 if self.env_reward_weight == 0 else 0.0
        return default if self.discriminator_updates is None else self.discriminator_updates

    @property
    def uses_env_reward(self) -> bool:
        """Whether the environment's reward enters what is learned: not in imitation, but for a quirk of it."""
        return self.env_reward_weight > 0 or "imitation_env_reward" in self.reference_quirks

    @field_validator("reference_quirks", mode="before")
    @classmethod
    def _all_quirks(cls, value: object) -> object:
        return {True: list(get_args(Quirk)), False: []}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _reward_range(self) -> "Algorithm":
        if self.discriminator_reward_min >= self.discriminator_reward_max:
            raise ValueError("discriminator_reward_min must be below discriminator_reward_max")
        return self


class SAC(Section):
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


class Rollout(Section):
    """Who collects experience, and how often the policy reaches them."""

    num_env_runners: int = Field(1, ge=0, description="runner processes; 0: sample in the learner's process")
    num_envs_per_env_runner: int = Field(16, gt=0, description="environments a runner steps in lockstep")
    skill_steps_per_fragment: int = Field(
        64, gt=0, description="skill steps (env steps of SAC) over all environments a sampling request"
    )
    placement: Literal["SPREAD", "PACK"] = Field("SPREAD", description="runners on as many, or as few, nodes as can be")
    cpus_per_env_runner: float = Field(1.0, gt=0, description="cores of each runner")
    env_runner_resources: dict[str, float] = Field(
        {}, description="custom resources of each runner, such as {simulator: 1}: only nodes that have them get one"
    )
    answer_timeout_s: float = Field(
        60.0,
        gt=0,
        description="a runner that is silent for so long, and ten times as long as is usual, is replaced",
    )


class Resources(Section):
    """What each stage may use of the cluster."""

    train_workers: int = Field(1, gt=0, description="Ray Train workers of an offline stage")
    cpus_per_train_worker: int = Field(1, gt=0, description="cores, and torch threads, of each")
    use_gpu: bool = Field(False, description="offline stages and learners on GPUs")
    num_learners: int = Field(0, ge=0, description="remote learners; 0: in the driver")
    learner_threads: int = Field(1, gt=0, description="torch threads, and cores where it is remote, of each learner")
    data_workers: int | None = Field(None, gt=0, description="parallel tasks that generate data; default: all cores")


class Progress(Section):
    """How often a long run reports and saves."""

    report_interval_s: float = Field(5.0, gt=0, description="seconds between lines of metrics in stage 4")
    checkpoint_interval_s: float = Field(60.0, gt=0, description="seconds between checkpoints in stage 4")
    checkpoint_env_steps: int = Field(50_000, gt=0, description="the same with algorithm.synchronous, in env steps")
    keep_checkpoints: int = Field(2, gt=0)


class Evaluation(Section):
    """The final evaluation of stage 4."""

    episodes: int = Field(100, gt=0, description="episodes, once deterministic and once sampled")
    num_envs: int = Field(25, gt=0, description="environments a process steps in lockstep")
    seed: int = Field(
        1_000, ge=0, description="seed of the evaluation episodes, apart from training's and those a sweep chooses on"
    )
    without_rl: bool = Field(
        True, description="the policies without reinforcement learning, too; runs on the same artifacts share them"
    )
    videos: int = Field(2, ge=0, description="deterministic episodes to film: a typical one, the worst, the best, ...")


class Wandb(Section):
    """A run at Weights & Biases; needs the extra `wandb`."""

    project: str | None = Field(None, description="default: WANDB_PROJECT, else skild_ray")
    entity: str | None = Field(None, description="user or team; default: WANDB_ENTITY, else that of the login")
    group: str | None = Field(
        None, description="runs that belong together, such as the seeds of one experiment; default: WANDB_RUN_GROUP"
    )
    tags: list[str] | None = Field(None, description="default: WANDB_TAGS")
    mode: Literal["online", "offline", "disabled"] | None = Field(
        None,
        description="offline: kept below the run's folder, without network or account, for `wandb sync`; default: "
        "WANDB_MODE, else online",
    )


class MLflow(Section):
    """A run at MLflow; needs the extra `mlflow`."""

    uri: str | None = Field(
        None, description="tracking server; default: MLFLOW_TRACKING_URI, else the file mlflow.db in `runs`"
    )
    experiment: str | None = Field(None, description="default: MLFLOW_EXPERIMENT_NAME, else skild_ray")


class Tracking(Section):
    """Trackers that get the metrics of every stage, besides the files that are always written."""

    wandb: Wandb | None = Field(None, description="default: none; {} for its own defaults")
    mlflow: MLflow | None = Field(None, description="default: none; {} for its own defaults")


class Experiment(Section):
    """Everything that fixes a run; the same experiment and seed give the same data and models."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128, description="name of the run's folder")
    seed: int = Field(0, ge=0)
    runs: str = Field("runs", description="folder of all runs, or a URI such as s3://bucket/runs")
    environment: Environment
    data: Data
    skill: SkillModel = SkillModel()
    skill_prior: SkillPrior = SkillPrior()
    skill_posterior: SkillPosterior = SkillPosterior()
    demo_discriminator: DemoDiscriminator = DemoDiscriminator()
    algorithm: Algorithm = Algorithm()
    sac: SAC | None = Field(None, description="where it is given, plain SAC is trained and stages 1 to 4 are not")
    rollout: Rollout = Rollout()
    resources: Resources = Resources()
    progress: Progress = Progress()
    evaluation: Evaluation = Evaluation()
    tracking: Tracking = Tracking()

    @field_validator("runs")
    @classmethod
    def _at_home(cls, runs: str) -> str:
        return os.path.expanduser(runs)

    @property
    def run_dir(self) -> Path:
        """`runs/<name>`, or its copy on this node: the folder of all stages of this experiment."""
        return local_folder(self.runs) / self.name

    @property
    def imitation(self) -> bool:
        """Whether stage 4 learns without any reward from the environment."""
        return self.algorithm.env_reward_weight == 0

    @property
    def downstream(self) -> "Algorithm | SAC":
        """The settings of the reinforcement learning, whichever algorithm it is."""
        return self.sac or self.algorithm


def load_experiment(path: str | Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read, merge and validate an experiment file.

    Args:
        path: YAML file.
        overrides: `a.b=value` strings, merged last; values are YAML.

    Raises:
        ConfigError: one line that names file and key, with the nearest valid key where one is unknown.
    """
    return _validate(read_mapping(Path(os.path.expanduser(path))), overrides, str(path))


def override_experiment(experiment: Experiment, overrides: Sequence[str]) -> Experiment:
    """The experiment with `a.b=value` overrides.

    Raises:
        ConfigError: as `load_experiment`.
    """
    return _validate(OmegaConf.create(experiment.model_dump()), overrides, experiment.name)


def with_values(experiment: Experiment, values: Mapping[str, Any]) -> Experiment:
    """The experiment with other values at these keys, such as `algorithm.alpha`.

    Raises:
        ConfigError: one line that names the key, with the nearest valid one where it is unknown.
    """
    content = OmegaConf.create(experiment.model_dump(mode="json"))
    for key, value in values.items():
        set_value(content, key, value, f"'{key}'")
    try:
        return Experiment.model_validate(OmegaConf.to_container(content))
    except ValidationError as error:
        raise ConfigError(explain(error)) from None


def to_yaml(experiment: Experiment) -> str:
    """The resolved experiment, every default included, as a file that `load_experiment` reads back."""
    return yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)


def fingerprint(*parts: object) -> str:
    """Short SHA-256 of JSON-able values or sections: equal exactly where everything that went in is equal."""
    plain = [part.model_dump(mode="json") if isinstance(part, BaseModel) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _validate(content: Any, overrides: Sequence[str], origin: str) -> Experiment:
    for text in overrides:
        set_value(content, *override_of(text), f"--set {text}")
    try:
        plain = OmegaConf.to_container(content, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{origin}: {str(error).splitlines()[0]}") from None
    try:
        return Experiment.model_validate(plain)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error)}") from None


def read_mapping(path: Path, seen: tuple[Path, ...] = ()) -> Any:
    """The content of a YAML file, merged over that of the one it extends."""
    if path.resolve() in seen:
        raise ConfigError(f"{path}: 'extends' runs in a circle")
    try:
        content = OmegaConf.load(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such experiment file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{path}: an experiment is a mapping of keys to values")
    base = content.pop("extends", None)
    if base is None:
        return content
    extended = path.parent / os.path.expanduser(str(base))
    return _merge(read_mapping(extended, (*seen, path.resolve())), content, str(path))


def _merge(base: Any, changes: Any, origin: str) -> Any:
    """`changes` merged over `base`; `origin` names the former in messages."""
    try:
        return OmegaConf.merge(base, changes)
    except TypeError:
        raise ConfigError(f"{origin}: a mapping stands where a list belongs, or the reverse") from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"{origin}: {str(error).splitlines()[0]}") from None


def set_value(content: DictConfig, key: str, value: Any, origin: str) -> None:
    """Set the value of `a.b`, or `a.0.b` inside a list; a mapping is merged over the one that is there.

    `origin` names the change in messages.
    """
    try:
        OmegaConf.update(content, key, value)
    except (IndexError, TypeError, ValueError):
        raise ConfigError(
            f"{origin}: no such place; entries of a list are numbered from 0, as in data.task_agnostic.0.weight"
        ) from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"{origin}: {str(error).splitlines()[0]}") from None


def override_of(text: str) -> tuple[str, Any]:
    """Key and value of `a.b=value`; where the experiment has text, a number is the text that was written."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {text}: expected key=value, as in --set algorithm.alpha=0.5")
    try:
        # As in files: YAML 1.1 itself takes 2026-11-28 for a date, and 1e-3 for text.
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))
    except (yaml.YAMLError, OmegaConfBaseException):
        raise ConfigError(f"--set {text}: the value is not valid YAML") from None
    assert isinstance(parsed, dict)
    return key, value if isinstance(parsed["value"], int | float) and _takes_text(key) else parsed["value"]


def _takes_text(key: str) -> bool:
    """Whether the experiment has text at `a.b`, or entries of text there."""
    annotation: Any = Experiment
    for part in key.split("."):
        if part.isdecimal():
            continue
        section = next((c for c in _alternatives(annotation) if isinstance(c, type) and issubclass(c, BaseModel)), None)
        if section is None or part not in section.model_fields:
            return False
        annotation = section.model_fields[part].annotation
    return str in _alternatives(annotation)


def _alternatives(annotation: Any) -> list[Any]:
    """All types in an annotation such as `list[str] | None`."""
    return [annotation, *(inner for part in get_args(annotation) for inner in _alternatives(part))]


def explain(error: ValidationError, schema: type[BaseModel] | None = None) -> str:
    """One problem as 'key: message', with the nearest key of `schema` (default: Experiment) if it is unknown."""
    problems = error.errors()
    # A misspelt key is also a missing one; what was meant is better said of the former.
    problem = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    location = [part for part in problem["loc"]]
    key = ".".join(str(part) for part in location)
    if problem["type"] == "extra_forbidden":
        nearest = _nearest_key(location, schema or Experiment)
        return f"unknown key '{key}'" + (f"; the nearest is '{nearest}'" if nearest else "")
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    got = "" if isinstance(problem["input"], dict | list) else f", got {_shortened(repr(problem['input']))}"
    quotes = "; put it in quotes" if problem["type"] == "string_type" and got else ""
    return f"'{key}': {message}{got}{quotes}" if key else message


def _shortened(text: str, length: int = 80) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _nearest_key(location: Sequence[int | str], schema: type[BaseModel]) -> str | None:
    """The most similar key beside the unknown one, or else the key of that name in any other section."""
    name = str(location[-1])
    beside = difflib.get_close_matches(name, _keys_beside(location, schema), n=1)
    if beside:
        return ".".join(map(str, [*location[:-1], *beside]))
    for section, field in schema.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and name in annotation.model_fields:
            return f"{section}.{name}"
    return None


def _keys_beside(location: Sequence[int | str], schema: type[BaseModel]) -> list[str]:
    """Field names of the section in which `location`'s last part stands."""
    section: Any = schema
    parts = iter(location[:-1])
    for part in parts:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        if get_origin(annotation) is dict:
            next(parts, None)  # a key of the user's own
        candidates = [annotation, *get_args(annotation)]
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(section.model_fields)
