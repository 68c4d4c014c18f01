"""Our worlds, one folder each: an environment, and a demonstrator that solves its tasks.

Importing this package registers `skild_ray/Maze-v0`, `Kitchen-v0` and so on with Gymnasium. Every environment here has
a one-dimensional float32 observation, actions in [-1, 1], an attribute `subtasks` (names in the order in which they
count) and, in the info of every `reset` and `step`, `subtasks_solved`: how many of them were credited so far in the
episode. An episode is a success when all of them were. It ends by itself: `terminated` once all sub-tasks are credited,
`truncated` after `max_episode_steps`.
"""

from skild_ray.config import Generate
from skild_ray.worlds.world import World, register

__all__ = ["EXPERTS", "WORLDS", "World"]

WORLDS = register(
    World(
        "maze",
        environment="skild_ray/Maze-v0",
        entry_point="skild_ray.worlds.maze.environment:MazeEnv",
        experts={"maze": "skild_ray.worlds.maze.demonstrator:MazeExpert"},
        play=Generate(expert="maze", episodes=3000, env_kwargs={"task": "random"}, action_noise=0.5),
        demonstrations=Generate(expert="maze", episodes=5),
    ),
    World(
        "kitchen",
        environment="skild_ray/Kitchen-v0",
        entry_point="skild_ray.worlds.kitchen.environment:KitchenEnv",
        experts={
            "kitchen": "skild_ray.worlds.kitchen.demonstrator:KitchenExpert",
            "kitchen_tracker": "skild_ray.worlds.kitchen.tracker:KitchenTracker",
        },
        play=Generate(
            expert="kitchen", episodes=600, env_kwargs={"task": "play", "max_episode_steps": 400}, action_noise=0.1
        ),
        demonstrations=Generate(expert="kitchen", episodes=20, action_noise=0.05),
        understands=("FrankaKitchen-v1",),
    ),
    World(
        "office",
        environment="skild_ray/Office-v0",
        entry_point="skild_ray.worlds.office.environment:OfficeEnv",
        experts={"office": "skild_ray.worlds.office.demonstrator:OfficeExpert"},
        play=Generate(expert="office", episodes=2000, env_kwargs={"task": "random"}, action_noise=0.2),
        demonstrations=Generate(expert="office", episodes=50, action_noise=0.1),
    ),
    *(
        World(
            name,
            environment=f"skild_ray/{id}-v0",
            entry_point="skild_ray.worlds.ogbench.environment:OGBenchEnv",
            kwargs={"name": name, "task": task},
            experts={"ogbench": "skild_ray.worlds.ogbench.demonstrator:OGBenchExpert"},
            play=Generate(
                expert="ogbench", episodes=300, env_kwargs={"task": "play", "max_episode_steps": 400}, action_noise=0.1
            ),
            demonstrations=Generate(expert="ogbench", episodes=20, action_noise=0.1),
        )
        # The default tasks are OGBench's.
        for name, id, task in (
            ("scene", "Scene", "task2"),
            ("cube-single", "CubeSingle", "task2"),
            ("cube-double", "CubeDouble", "task2"),
            ("puzzle-3x3", "Puzzle3x3", "task4"),
        )
    ),
)

EXPERTS = {name: place for world in WORLDS.values() for name, place in world.experts.items()}
"""Name of a demonstrator -> `module:class`."""
