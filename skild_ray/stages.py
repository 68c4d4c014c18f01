"""The stages of a run: their names, what each is made from, and in which order they come."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

DataKind = Literal["task_agnostic", "demonstrations"]
TASK_AGNOSTIC: DataKind = "task_agnostic"
DEMONSTRATIONS: DataKind = "demonstrations"

DEMONSTRATIONS_FILE = "demonstrations.safetensors"
"""Beside the discriminator's weights: all demonstrations, for whatever trains on their states later."""


@dataclass(frozen=True)
class Stage:
    """What the program knows of a stage.

    Attributes:
        name: of its folder in a run and, with hyphens, of its command; of its section too where it is offline.
        title: what pages call it.
        inputs: names of the stages whose artifacts it starts from.
        data: the kinds of data that it is trained on.
        problem: `module:class` of an offline stage's `Problem`.
        summary: one line for pages on what stage 4 does.
        because: the setting that makes this stage 4 of an experiment.
    """

    name: str
    title: str
    inputs: tuple[str, ...] = ()
    data: tuple[DataKind, ...] = ()
    problem: str = ""
    summary: str = ""
    because: str = ""


def in_words(name: str) -> str:
    """The name of a stage in words."""
    return name.replace("_", " ")


def command_name(name: str) -> str:
    """A stage on the command line."""
    return name.replace("_", "-")


def train_command(name: str) -> str:
    """The command that trains a stage alone."""
    return f"skild-ray train {command_name(name)} EXPERIMENT"


SKILL_PRIOR = Stage(
    "skill_prior", "Skill prior", data=(TASK_AGNOSTIC,), problem="skild_ray.offline.skill_prior:SkillPriorProblem"
)
SKILL_POSTERIOR = Stage(
    "skill_posterior",
    "Skill posterior",
    inputs=(SKILL_PRIOR.name,),
    data=(DEMONSTRATIONS,),
    problem="skild_ray.offline.skill_posterior:SkillPosteriorProblem",
)
DEMO_DISCRIMINATOR = Stage(
    "demo_discriminator",
    "Demo discriminator",
    data=(TASK_AGNOSTIC, DEMONSTRATIONS),
    problem="skild_ray.offline.demo_discriminator:DemoDiscriminatorProblem",
)
BEHAVIOURAL_CLONING = Stage(
    "behavioural_cloning",
    "Behavioural cloning",
    data=(DEMONSTRATIONS,),
    problem="skild_ray.offline.behavioural_cloning:BehaviouralCloningProblem",
)

OFFLINE: Mapping[str, Stage] = {
    stage.name: stage for stage in (SKILL_PRIOR, SKILL_POSTERIOR, DEMO_DISCRIMINATOR, BEHAVIOURAL_CLONING)
}
"""The stages that learn from data alone, by name, in order: SkiLD's stages 1 to 3, then those of baselines.

Stage 4 is the experiment's algorithm's, see `algorithms.registry`. It names the ones that it needs."""

SKILD_INPUTS = (SKILL_PRIOR.name, SKILL_POSTERIOR.name, DEMO_DISCRIMINATOR.name)
"""Stages 1 to 3 of SkiLD."""

DEMO_RL = Stage(
    "demo_rl",
    "Demonstration-guided RL",
    inputs=SKILD_INPUTS,
    summary="Demonstration-guided reinforcement learning with the environment's reward",
    because="algorithm.env_reward_weight is above 0",
)
IMITATION = Stage(
    "imitation",
    "Imitation",
    inputs=SKILD_INPUTS,
    summary="Imitation: the demonstrations are the only reward",
    because="algorithm.env_reward_weight is 0",
)
