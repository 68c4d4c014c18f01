"""The code released with the paper, where it has defects that change results: all of `reference_quirks`.

`ReferenceSkiLDConfig` restores those that its settings name. Three are settings that the released code does not heed
(`ReferenceSettings.followed`). The others are another reward and another weight in the target (`reference_losses`),
other transitions (`ShiftedTransitions`) and other actions (`squashed`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from torch import Tensor

from skild_ray.algorithms.off_policy_config import Makers
from skild_ray.algorithms.pretrained import load_decoder
from skild_ray.algorithms.skild.losses import Update, skild_losses
from skild_ray.algorithms.skild.reference_settings import ReferenceSettings
from skild_ray.algorithms.skild.settings import SkiLDSettings
from skild_ray.algorithms.skild.skild import SkiLD, SkiLDConfig
from skild_ray.algorithms.skild.skild_experience import SkillExperience
from skild_ray.algorithms.skild.skild_learner import SkiLDTorchLearner
from skild_ray.algorithms.skild.skild_rl_module import SkiLDTorchRLModule
from skild_ray.algorithms.transitions import Rows, episode_rows
from skild_ray.envs.skill_env import Decoder, SkillVectorEnv
from skild_ray.models.discriminator import discriminator_reward

# --- losses ---


def reference_losses(settings: SkiLDSettings, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Update:
    """`skild_losses` with two quirks.

    current_state_weights: the target weighs the divergences at s_1 .. s_n by D(s_0).
    saturating_reward: see `saturating_reward`.
    """
    quirks = cast(ReferenceSettings, settings).reference_quirks
    if "current_state_weights" in quirks and settings.kl_in_target:
        out = {**out, "later_logits": out["logits"][:, :1]}
    reward = saturating_reward if "saturating_reward" in quirks else discriminator_reward
    return skild_losses(settings, batch, out, reward)


def saturating_reward(settings: SkiLDSettings, logits: Tensor) -> Tensor:
    """r_D = log D - log(1 - D) through float32 probabilities, unclipped: logits beyond about +-17 become +-46.05."""
    probability = torch.sigmoid(logits)
    return torch.log(probability + 1e-20) - torch.log(1 - probability + 1e-20)


class ReferenceLearner(SkiLDTorchLearner):
    """Minimises `reference_losses`."""

    def losses(self, module: SkiLDTorchRLModule, batch: Mapping[str, Tensor], out: Mapping[str, Tensor]) -> Update:
        return reference_losses(module.settings, batch, out)


# --- transitions ---


class ShiftedTransitions:
    """shifted_transitions: the released code's transitions, off by one.

    The state of a skill is the one after its first environment step (that of an episode's first skill excepted), the
    next state that of the following skill; a time limit counts as a termination and loses its last reward; where the
    episode terminates on the first step of a skill, that skill is merged into the one before. Rows therefore leave an
    episode only when it has ended.

    Its episodes come from a `TracedSkillVectorEnv`.
    """

    def __init__(self) -> None:
        self._open: dict[str, list[tuple[Rows, list[dict[str, Any]]]]] = {}

    def __call__(self, episode: SingleAgentEpisode) -> Rows | None:
        """All rows of the episode of which this is the last chunk, or None where more is to come."""
        chunks = self._open.setdefault(episode.id_, [])
        chunks.append((episode_rows(episode), episode.get_infos()[1:]))
        if not episode.is_done:
            return None
        del self._open[episode.id_]
        rows = {name: np.concatenate([chunk[name] for chunk, _ in chunks]) for name in chunks[0][0]}
        infos = [info for _, chunk_infos in chunks for info in chunk_infos]
        if episode.is_terminated and rows["k"][-1] == 1 and len(infos) > 1:
            rows["rewards"][-2] += rows["rewards"][-1]
            end = rows["next_obs"][-1]
            rows = {name: column[:-1] for name, column in rows.items()}
            rows["next_obs"][-1] = end
        elif not episode.is_terminated:
            rows["rewards"][-1] -= infos[-1]["last_reward"]
        count = len(rows["rewards"])
        first = np.stack([info["first_observation"] for info in infos[:count]])
        rows["obs"][1:] = first[1:]
        rows["next_obs"][:-1] = first[1:]
        rows["terminated"][-1] = 1.0
        return rows


class ShiftedExperience(SkillExperience):
    """`SkillExperience` of `ShiftedTransitions`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._shift = ShiftedTransitions()

    def add(self, chunks: Sequence[SingleAgentEpisode]) -> None:
        self.store([(chunk, rows) for chunk in chunks if (rows := self._shift(chunk)) is not None])

    def forget_open_episodes(self) -> None:
        super().forget_open_episodes()
        self._shift = ShiftedTransitions()


class TracedSkillVectorEnv(SkillVectorEnv):
    """`SkillVectorEnv` whose info also has, for each environment,

    first_observation: s_{t+1}, the state after the skill's first environment step; the state itself after a reset.
    last_reward: of the skill's last environment step; 0 after a reset.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._traces = [_Trace(env) for env in self.envs]
        self.envs = [*self._traces]

    def step(self, actions: NDArray[np.float32]) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        for trace in self._traces:
            trace.first, trace.last_reward = None, 0.0
        observations, rewards, terminated, truncated, info = super().step(actions)
        first = observations.copy()
        for index, trace in enumerate(self._traces):
            if trace.first is not None:
                first[index] = trace.first
        info["first_observation"], info["last_reward"] = first, np.array([trace.last_reward for trace in self._traces])
        info["_first_observation"] = info["_last_reward"] = np.ones(self.num_envs, bool)
        return observations, rewards, terminated, truncated, info


class _Trace(gym.Wrapper):
    """Notes the first observation and the last reward of the skill in force."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.first: NDArray[np.float32] | None = None
        self.last_reward = 0.0

    def step(self, action: Any) -> Any:
        outcome = self.env.step(action)
        if self.first is None:
            self.first = np.array(outcome[0], np.float32)
        self.last_reward = float(outcome[1])
        return outcome


# --- actions ---


def squashed(decoder: Decoder) -> Decoder:
    """squashed_decoder: actions are tanh of the decoder's output, which was trained to be the action itself."""
    return lambda inputs: torch.from_numpy(np.tanh(decoder(inputs).numpy()))


# --- the algorithm ---


class ReferenceSkiLDConfig(SkiLDConfig):
    """`SkiLDConfig` with the `reference_quirks` of its settings."""

    Settings = ReferenceSettings
    settings: ReferenceSettings

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or ReferenceSkiLD)

    @property
    def resolved(self) -> SkiLDSettings:
        return cast(ReferenceSettings, super().resolved).followed()

    def build_experience(self) -> SkillExperience:
        shifted = "shifted_transitions" in self.settings.reference_quirks
        experience = ShiftedExperience if shifted else SkillExperience
        return experience(self.open_pretrained(), self.resolved, self.low_level, self.seed or 0)

    def make_vector_env(self, makers: Makers, autoreset: bool = True) -> TracedSkillVectorEnv:
        pretrained = self.open_pretrained()
        skill, decoder = pretrained.experiment.skill, cast(Decoder, load_decoder(pretrained.skill_prior))
        if "squashed_decoder" in self.settings.reference_quirks:
            decoder = squashed(decoder)
        return TracedSkillVectorEnv(makers, decoder, skill.latent_dim, skill.horizon, autoreset=autoreset)

    def get_default_learner_class(self) -> type:
        return ReferenceLearner


class ReferenceSkiLD(SkiLD):
    """`SkiLD` as it was released."""

    @classmethod
    def get_default_config(cls) -> ReferenceSkiLDConfig:
        return ReferenceSkiLDConfig()
