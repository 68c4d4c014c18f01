"""Low-level environments, registered with Gymnasium on import: `skild_ray/Maze-v0`, `Kitchen-v0` and `Office-v0`.

Every environment here has a one-dimensional float32 observation, actions in [-1, 1], an attribute `subtasks` (names in
the order in which they count) and, in the info of every `reset` and `step`, `subtasks_solved`: how many of them were
credited so far in the episode. An episode is a success when all of them were. It ends by itself: `terminated` once all
sub-tasks are credited, `truncated` after `max_episode_steps`.
"""

import gymnasium as gym

from skild_ray.envs.registry import make_env
from skild_ray.startup import import_mujoco

__all__ = ["make_env"]

import_mujoco()  # before an environment does

# The environments check themselves what Gymnasium's wrappers would, and truncate at their own argument.
for _id, _class in (("Maze", "maze:MazeEnv"), ("Kitchen", "kitchen:KitchenEnv"), ("Office", "office:OfficeEnv")):
    gym.register(f"skild_ray/{_id}-v0", f"skild_ray.envs.{_class}", disable_env_checker=True, order_enforce=False)
