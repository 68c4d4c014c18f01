"""SkiLD's sampling and learning: each alone, and together as in training."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor

from benchmarks.bare_updates import BareLearner
from benchmarks.measure import Rates, rate
from skild_ray.algorithms.off_policy import UPDATES_PER_CALL
from skild_ray.algorithms.skild.skild import SkiLD, SkiLDConfig
from skild_ray.config import Experiment

NEVER = 10**12


class TrainingLoop:
    """One `SkiLD` algorithm, driven in turn as in training, without its learning, and without its sampling.

    Everything that samples has run for a while when its time begins, and env runners are idle when it ends.
    """

    def __init__(self, experiment: Experiment) -> None:
        algo = SkiLDConfig.from_experiment(experiment).build_algo()
        assert isinstance(algo, SkiLD) and algo.learner_group is not None and algo.env_runner_group is not None
        self._algo, self._learners, self._runners = algo, algo.learner_group, algo.env_runner_group
        self._num_learners = max(1, experiment.resources.num_learners)
        self._learning = algo.pace
        self._sampling = algo.pace._replace(warmup_decisions=NEVER)
        self._size = experiment.algorithm.batch_size
        self._threads = experiment.resources.learner_threads
        self._horizon = experiment.skill.horizon
        self._bare = BareLearner(SkiLDConfig.from_experiment(experiment).build_module())
        self._drawn: dict[str, Tensor] = {}
        self._trained = {"updates": 0, "decisions": 0}

    def sampling_only(self, seconds: float) -> Rates:
        """sampling_only_env_steps_per_s: env runners flat out, their experience stored, nothing learned."""
        self._algo.pace = self._sampling
        found = self._train(seconds)
        return {"sampling_only_env_steps_per_s": found["env_steps"]}

    def loop(self, seconds: float) -> Rates:
        """loop_env_steps_per_s, loop_updates_per_s: `SkiLD.train()` as it is."""
        self._algo.pace = self._learning
        before = dict(self._algo.counts)
        found = self._train(seconds)
        for name in self._trained:
            self._trained[name] += self._algo.counts[name] - before[name]
        return {"loop_env_steps_per_s": found["env_steps"], "loop_updates_per_s": found["updates"]}

    def learning_only(self, seconds: float) -> Rates:
        """learning_only_updates_per_s: the algorithm's own updates, draws from the replay included.

        learning_only_env_steps_per_s: the environment steps that so many updates can keep up with.
        """

        def learn() -> int:
            self._algo._owed += UPDATES_PER_CALL * self._size
            self._algo._learn()
            return UPDATES_PER_CALL

        with self._learner_threads():
            updates = rate(learn, seconds)
        skill_steps = updates * self._size / self._learning.samples_per_decision
        return {
            "learning_only_updates_per_s": updates,
            "learning_only_env_steps_per_s": skill_steps * self.env_steps_per_skill_step,
        }

    def rllib_updates(self, seconds: float) -> Rates:
        """rllib_updates_per_s: `LearnerGroup.update` on one batch drawn before."""
        batch = MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(self._draw())}, env_steps=UPDATES_PER_CALL * self._size)

        def learn() -> int:
            self._learners.update(
                batch=batch,
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self._algo.counts["decisions"]},
                minibatch_size=self._size // self._num_learners,
                num_epochs=1,
            )
            return UPDATES_PER_CALL

        with self._learner_threads():
            return {"rllib_updates_per_s": rate(learn, seconds)}

    def bare_updates(self, seconds: float) -> Rates:
        """bare_updates_per_s: the same update on the same batch in a plain torch loop."""
        parts = {name: column.split(self._size) for name, column in self._draw().items()}
        batches = [{name: column[index] for name, column in parts.items()} for index in range(UPDATES_PER_CALL)]

        def learn() -> int:
            for batch in batches:
                self._bare.update(batch)
            return UPDATES_PER_CALL

        with self._learner_threads():
            return {"bare_updates_per_s": rate(learn, seconds)}

    @property
    def env_steps_per_skill_step(self) -> float:
        """Mean length of the skills sampled so far."""
        counts = self._algo.counts
        return counts["env_steps"] / counts["decisions"] if counts["decisions"] else float(self._horizon)

    @property
    def samples_per_skill_step(self) -> float:
        """Replayed transitions for each new one in all calls of `loop`."""
        return self._trained["updates"] * self._size / max(1, self._trained["decisions"])

    def close(self) -> None:
        """Stop the env runners."""
        self._algo.stop()

    def _train(self, seconds: float) -> dict[str, float]:
        """Env steps and updates a second over whole iterations, after one that is not counted."""
        self._algo.train()
        before, started = dict(self._algo.counts), time.perf_counter()
        while time.perf_counter() - started < seconds:
            self._algo.train()
        elapsed = time.perf_counter() - started
        # Returns once the requests that are still open have been worked off.
        self._runners.foreach_env_runner(_nothing, local_env_runner=False)
        return {name: (self._algo.counts[name] - before[name]) / elapsed for name in ("env_steps", "updates")}

    def _draw(self) -> dict[str, Tensor]:
        """One call's batch, drawn once from real experience."""
        if not self._drawn:
            drawn = self._algo.replay.sample(UPDATES_PER_CALL * self._size)
            self._drawn = {name: torch.from_numpy(column) for name, column in drawn.items()}
        return dict(self._drawn)

    @contextmanager
    def _learner_threads(self) -> Iterator[None]:
        threads = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _nothing(runner: object) -> None:
    """Runs on an env runner."""
