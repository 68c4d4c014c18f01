"""RLPD over skills as an RLlib algorithm: its configuration."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from skild_ray.algorithms.earlier_runs import open_earlier
from skild_ray.algorithms.off_policy import OffPolicy
from skild_ray.algorithms.over_skills import SkillConfig
from skild_ray.algorithms.pretrained import load_skill_model
from skild_ray.algorithms.rlpd.rlpd import RLPDConfig
from skild_ray.algorithms.rlpd.rlpd_rl_module import SkillRLPDTorchRLModule
from skild_ray.algorithms.rlpd.settings import SkillRLPDSettings
from skild_ray.algorithms.stored_transitions import skill_rows
from skild_ray.algorithms.transitions import Rows
from skild_ray.algorithms.typing import takes
from skild_ray.runs.artifacts import Artifact, require_hash
from skild_ray.stages import DataKind


class SkillRLPDConfig(SkillConfig, RLPDConfig):
    """Configuration of `SkillRLPD`.

        config = (
            SkillRLPDConfig()
            .environment("skild_ray/Kitchen-v0", env_config={"task": "mkls"})
            .pretrained(run_dir="runs/kitchen")
            .task_agnostic("kitchen/play-v0")
            .training(total_env_steps=200_000)
        )
        algo = config.build_algo()

    `training` takes every field of `SkillRLPDSettings`, which documents them, and nothing unknown.
    """

    Settings = SkillRLPDSettings
    version = 1
    settings: SkillRLPDSettings

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or SkillRLPD)

    @takes(SkillRLPDSettings)
    def training(self, **kwargs: Any) -> Self:  # type: ignore[override]
        """Set fields of `SkillRLPDSettings`; RLlib takes the rest, and refuses what is unknown."""
        return super().training(**kwargs)

    def transitions(self, kind: DataKind) -> list[Rows]:
        """As transitions of skills, see `skill_rows`."""
        model = load_skill_model(self.skill_prior)
        return [part for rows in super().transitions(kind) for part in skill_rows(rows, model, self.horizon)]

    def earlier_runs(self) -> Sequence[Artifact]:
        """Stage 4 of each of the `replayed_runs`, over skills of the same skill prior.

        Raises:
            ArtifactError: see `open_earlier`; or one was collected with another skill prior.
        """
        found = [open_earlier(path, self.low_level, over_skills=True) for path in self.settings.replayed_runs]
        for artifact in found:
            remedy = "name a run with this one's skill prior in algorithm.replays"
            require_hash(str(artifact.path), artifact.record["inputs"], self.skill_prior, remedy)
        return found

    def without_rl(self) -> Mapping[str, Self]:
        """The policy that training starts from: the skill prior, or the posterior."""
        return {"initial": self.unchosen()}

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=SkillRLPDTorchRLModule)


class SkillRLPD(OffPolicy):
    """Learning over skills with prior data: a decision is one skill, worth up to H environment steps."""

    config: SkillRLPDConfig

    @classmethod
    def get_default_config(cls) -> SkillRLPDConfig:
        return SkillRLPDConfig()
