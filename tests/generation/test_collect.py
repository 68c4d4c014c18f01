"""What experts and environments do wrong while data are made is found in the first episode, and located."""

import re
from typing import Any

import numpy as np
import pytest
from line_world import LineExpert

from skild_ray.config import Environment, Generate
from skild_ray.generation.collect import Failure, Request, collect


class Acting(LineExpert):
    """Does `odd` in the fourth step."""

    odd: Any = np.zeros(1, np.float32)

    def reset(self, observation: np.ndarray) -> None:
        self.steps = 0

    def act(self, observation: np.ndarray) -> Any:
        self.steps += 1
        return self.odd if self.steps == 4 else np.zeros(1, np.float32)


class TooFar(Acting):
    odd = np.full(1, 1.5, np.float32)


class Lost(Acting):
    odd = np.full(1, np.nan, np.float32)


class Scalar(Acting):
    def act(self, observation: np.ndarray) -> Any:
        return 0.5


@pytest.mark.parametrize(
    ("expert", "kwargs", "message"),
    [
        ("Scalar", {}, r"the expert's action has shape \(\), the environment's \(1,\)"),
        ("TooFar", {}, r"action 1.5 in column 0 in step 4; the expert's actions must be in \[-1, 1\]"),
        ("Lost", {}, r"action nan in column 0 in step 4; the expert's actions must be in \[-1, 1\]"),
        ("Acting", {"fault": "reward nan", "at": 7}, "reward nan in step 7"),
        ("Acting", {"fault": "observation nan", "at": 7}, "observation nan in column 1 in step 7"),
        ("Acting", {"fault": "old step"}, "not enough values to unpack"),
    ],
)
def test_a_value_that_cannot_be_used_fails_the_episode(expert: str, kwargs: dict[str, Any], message: str) -> None:
    environment = Environment(id="odd_env:OddEnv", kwargs={"names": [], **kwargs})
    request = Request.of(Generate(expert=f"{__name__}:{expert}", episodes=1), environment, 0)
    (outcome,) = collect(request, first=0, count=1)
    assert isinstance(outcome, Failure) and re.search(message, outcome.error or ""), outcome
