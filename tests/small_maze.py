"""A small maze experiment that runs through all stages within seconds."""

from typing import Any

TRAINING = {"iterations": 60, "validation_interval": 20, "warmup_iterations": 10}
EXPERIMENT: dict[str, Any] = {
    "name": "small",
    "environment": {"id": "skild_ray/Maze-v0", "kwargs": {"max_episode_steps": 100}},
    "data": {
        "task_agnostic": {
            "play": {
                "generate": {
                    "expert": "maze",
                    "episodes": 8,
                    "env_kwargs": {"task": "random", "max_episode_steps": 2000},
                }
            }
        },
        "demonstrations": {
            "scripted": {"generate": {"expert": "maze", "episodes": 3, "env_kwargs": {"max_episode_steps": 2000}}}
        },
    },
    "skill": {"hidden": 16, "decoder_layers": 1, "head_layers": 1},
    "skill_prior": TRAINING | {"iterations": 600, "checkpoint_interval_s": 0.1},
    "skill_posterior": TRAINING,
    "demo_discriminator": TRAINING | {"hidden": 8, "layers": 1},
    "algorithm": {
        "total_env_steps": 8_000,
        "critic_hidden": 32,
        "critic_layers": 1,
        "batch_size": 32,
        "samples_per_skill_step": 64,
        "warmup_skill_steps": 64,
        "critic_warmup_updates": 10,
    },
    "rollout": {"num_env_runners": 1, "num_envs_per_env_runner": 4, "decisions_per_fragment": 16},
    "resources": {"cpus_per_train_worker": 1},
    "progress": {"report_interval_s": 0.1, "checkpoint_interval_s": 0.2},
    "evaluation": {"episodes": 3, "num_envs": 3},
}
