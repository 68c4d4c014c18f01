"""Where the office's objects stand when an episode begins, and how far its drawer is open."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from skild_ray.worlds.office.scene import DRAWER_TRAVEL, OBJECTS

Preset = Literal["varied", "shifted", "fixed"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

JITTER_M: dict[Preset, float] = {"varied": 0.05, "shifted": 0.05, "fixed": 0.01}
YAW_RAD: dict[Preset, float] = {"varied": np.pi, "shifted": np.pi, "fixed": 0.25}
MAX_OPENING_M = 0.4 * DRAWER_TRAVEL
# Centres of two objects are at least so far apart, so that fingers fit between them.
SPACING_M = 0.09
# With more, too few draws have that spacing.
MAX_JITTER_M = 0.08


@dataclass(frozen=True)
class Start:
    """The world at the start of an episode.

    Attributes:
        places: x and y in m and yaw in rad of each object, by name.
        opening: of the drawer, in m.
    """

    places: dict[str, tuple[float, float, float]]
    opening: float = 0.0


def draw_start(rng: np.random.Generator, preset: Preset, jitter: float) -> Start:
    """The start of an episode.

    "varied": objects are dealt to the places of OBJECTS, all permutations with equal probability, and shifted; where
    two of them are nearer than SPACING_M all are drawn again. Yaw is any, the drawer is open by up to MAX_OPENING_M.
    "shifted": the same, but every object is shifted from its own place.
    "fixed": every object is near its own place, with a yaw of at most 0.25 rad, and the drawer is closed.

    Args:
        rng: draws.
        preset: see above.
        jitter: objects are so far, in m, along x and y from their places at most.
    """
    spread = np.array((jitter, jitter, YAW_RAD[preset]))
    own = np.array([thing.place for thing in OBJECTS.values()])
    if preset == "fixed":
        return Start(_named(own, rng.uniform(-spread, spread, (len(own), 3))))
    while True:
        places = rng.permutation(own) if preset == "varied" else own
        shifts = rng.uniform(-spread, spread, (len(own), 3))
        centres = places + shifts[:, :2]
        apart = np.linalg.norm(centres[:, None] - centres, axis=-1)[np.triu_indices(len(own), 1)]
        if apart.min() >= SPACING_M:
            return Start(_named(places, shifts), float(rng.uniform(0.0, MAX_OPENING_M)))


def _named(places: np.ndarray, shifts: np.ndarray) -> dict[str, tuple[float, float, float]]:
    return {
        name: (x + dx, y + dy, yaw)
        for name, (x, y), (dx, dy, yaw) in zip(OBJECTS, places.tolist(), shifts.tolist(), strict=True)
    }
