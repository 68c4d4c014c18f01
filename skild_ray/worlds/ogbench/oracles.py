"""OGBench's oracles: each brings one object to where its target is, in a scene that may have no target of its own."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle
from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle
from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle
from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

from skild_ray.worlds.ogbench.environment import OGBenchEnv
from skild_ray.worlds.ogbench.goals import CUBE_M, Goal, Place, Press, Slide

Kind = Literal["plan", "markov"]
"""An open-loop plan through key frames, or closed-loop control: OGBench's "play" and "noisy" data."""

# OGBench's own heights are for hands that come from a random place, well above everything.
CARRY_M = 0.25
"""Height at which a cube is carried, and comes into the drawer: lower down it pushes the drawer shut by its handle."""
WINDOW_CLEARANCE_M = 0.12
"""Above the window's handle, which fingers otherwise catch on their way to elsewhere."""
INTO_DRAWER_M = 0.005


class Direct:
    """A plan oracle whose `is_direct` leaves out the way to a random place that ends every plan."""

    is_direct = False

    def compute_keyframes(self, plan_input: dict[str, Any]) -> tuple[dict, dict, dict]:
        """Times, poses and grasps by the key frames' names."""
        frames: tuple[dict, dict, dict] = super().compute_keyframes(plan_input)  # type: ignore[misc]
        if self.is_direct:
            for part in frames:
                del part["final"]
        return frames


class DirectButton(Direct, ButtonPlanOracle):
    pass


class DirectCube(Direct, CubePlanOracle):
    def compute_keyframes(self, plan_input: dict[str, Any]) -> tuple[dict, dict, dict]:
        times, poses, grasps = super().compute_keyframes(plan_input)
        is_on_table = poses["place_end"].translation()[2] < CUBE_M
        for name in ("clearance",) if is_on_table else ("clearance", "place", "postplace"):
            missing = CARRY_M - poses[name].translation()[2]
            poses[name] = self.above(poses[name], max(missing, 0.0))
        return times, poses, grasps


class DirectDrawer(Direct, DrawerPlanOracle):
    pass


class DirectWindow(Direct, WindowPlanOracle):
    def compute_keyframes(self, plan_input: dict[str, Any]) -> tuple[dict, dict, dict]:
        times, poses, grasps = super().compute_keyframes(plan_input)
        if self.is_direct:
            poses["clearance"] = self.above(poses["release"], WINDOW_CLEARANCE_M)
        return times, poses, grasps


ORACLES: dict[Kind, dict[str, type]] = {
    "plan": {"button": DirectButton, "cube": DirectCube, "drawer": DirectDrawer, "window": DirectWindow},
    "markov": {
        "button": ButtonMarkovOracle,
        "cube": CubeMarkovOracle,
        "drawer": DrawerMarkovOracle,
        "window": WindowMarkovOracle,
    },
}


def make_oracles(env: OGBenchEnv, kind: Kind, plan_noise: float) -> dict[str, Any]:
    """An oracle for each kind of object.

    Args:
        env: where they act.
        kind: see `Kind`.
        plan_noise: of the key frames' path, smoothed over time, in units of an action of 1; for plans only.
    """
    arguments = {"noise": plan_noise} if kind == "plan" else {}
    # Among buttons 10 cm apart open fingers press a second one.
    closed = {"gripper_always_closed": True} if "privileged/block_0_pos" not in env.state else {}
    return {
        thing: oracle(env=env.ogbench, **arguments, **(closed if thing == "button" else {}))
        for thing, oracle in ORACLES[kind].items()
    }


def thing_of(goal: Goal) -> str:
    """Which oracle reaches a goal."""
    if isinstance(goal, Slide):
        return goal.thing
    return "button" if isinstance(goal, Press) else "cube"


def target_of(goal: Goal, env: OGBenchEnv, rng: np.random.Generator) -> Mapping[str, Any]:
    """What an oracle reads of its target, as OGBench's info has it in play."""
    if isinstance(goal, Press):
        return {
            "privileged/target_button": goal.button,
            "privileged/target_button_state": goal.state,
            "privileged/target_button_top_pos": env.ogbench.data.site(f"btntop_{goal.button}").xpos.copy(),
        }
    if isinstance(goal, Place):
        place = np.array(goal.place)
        place[:2] += rng.uniform(-INTO_DRAWER_M, INTO_DRAWER_M, 2)
        return {
            "privileged/target_block": goal.cube,
            "privileged/target_block_pos": place,
            "privileged/target_block_yaw": env.state[f"privileged/block_{goal.cube}_yaw"],
        }
    # The drawer's axis is turned by 180 degrees: it opens along -y in its own frame and along y in the world's.
    axis, sign = (1, -1.0) if goal.thing == "drawer" else (0, 1.0)
    handle = env.state[f"privileged/{goal.thing}_handle_pos"].copy()
    handle[axis] += sign * (goal.position - env.state[f"privileged/{goal.thing}_pos"][0])
    return {f"privileged/target_{goal.thing}_handle_pos": handle}
