"""Hashes of what small synchronous runs learn on every world: a change of structure must leave them as they are.

    python -m benchmarks.identity                      the hashes of this checkout
    python -m benchmarks.identity --against REVISION   those of another revision, too, and whether all agree
    python -m benchmarks.identity --record             note them in tests/identity.json, for the test of that name

Sums of floating-point numbers differ between processors, so hashes can only be compared if they were made on the same
kind of machine: the note says which. `--against` checks the revision out into a temporary folder, and makes both sides
here.
"""

import argparse
import csv
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from skild_ray.config import Experiment
from skild_ray.pipeline import Run
from skild_ray.runs.artifacts import Artifact
from skild_ray.runs.folder import run_folder

STAGE = {"iterations": 30, "validation_interval": 15, "batch_size": 32}
SKILL: dict[str, Any] = {"latent_dim": 4, "hidden": 16, "decoder_hidden": 16, "decoder_layers": 1, "head_layers": 1}
SKILL |= {"decoder_norm": "batch"}
PRIOR: dict[str, Any] = {
    "learning_rate": 1e-3,
    "muon_learning_rate": None,
    "matmul_precision": "highest",
    "kl_weight": 1e-3,
}
POSTERIOR: dict[str, Any] = {"observation_noise": 3e-3, "init_from_prior": False, "weight_average": 0.0}
ALGORITHM: dict[str, Any] = {
    "synchronous": True,
    "total_env_steps": 3_000,
    "critic_hidden": 16,
    "critic_layers": 1,
    "batch_size": 32,
}
ALGORITHM |= {"samples_per_skill_step": 16, "warmup_skill_steps": 32, "critic_warmup_updates": 5, "n_step": 3}
ALGORITHM |= {"discount": 0.99, "normalize_rewards": False, "env_reward_weight": 0.9, "alpha": 2.0, "alpha_q": 2.0}
ALGORITHM |= {"policy_init_scale": 1.0, "posterior_scale": 1.0, "sigma_floor": 0.0, "target_update_rate": 5e-3}
ALGORITHM |= {"latent_squash": "scaled_tanh", "latent_bound": 3.5, "policy_lr": 3e-4}
ALGORITHM |= {"discriminator_reward": "logit", "discriminator_reward_max": 5.0}
RLPD: dict[str, Any] = {
    "type": "rlpd",
    "synchronous": True,
    "total_env_steps": 1_000,
    "hidden": 16,
    "layers": 2,
    "batch_size": 32,
}
RLPD |= {"warmup_env_steps": 100, "critics": 3, "critic_updates_per_policy_update": 2, "backup_entropy": True}
MAZE = {"id": "skild_ray/Maze-v0", "kwargs": {"max_episode_steps": 300}}
LONG = {"max_episode_steps": 2_000}  # what the maze's expert needs
FIRST_NAMES = {"decisions": "skill_steps"}
"""Metrics that were renamed: hashed under their first names, they compare with older revisions."""
TIMES = ("seconds", "samples_per_s")
"""Metrics that are never the same twice."""


NOTE = Path(__file__).parents[1] / "tests" / "identity.json"


def _experiment(
    expert: str,
    environment: Mapping[str, Any],
    play: Mapping[str, Any],
    demonstrations: Mapping[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    def source(env_kwargs: Mapping[str, Any], **generate: Any) -> dict[str, Any]:
        return {"generate": {"expert": expert, "env_kwargs": env_kwargs, **generate}}

    return {
        "environment": environment,
        "data": {
            "task_agnostic": [source(play, episodes=4, action_noise=0.1)],
            "demonstrations": [source(demonstrations or {}, episodes=3, action_noise=0.05)],
        },
        "skill": SKILL,
        "skill_prior": STAGE | PRIOR,
        "skill_posterior": STAGE | POSTERIOR,
        "demo_discriminator": STAGE,
        "rollout": {"num_env_runners": 0, "num_envs_per_env_runner": 4, "decisions_per_fragment": 16},
        **changes,
    }


EVERYTHING = {"kl_in_target": True, "learn_alphas": True, "discriminator_updates": 0.5, "demonstration_share": 0.25}
RUNS: Mapping[str, dict[str, Any]] = {
    "maze": _experiment("maze", MAZE, {"task": "random", **LONG}, LONG, algorithm=ALGORITHM | EVERYTHING),
    "maze_rlpd": _experiment("maze", MAZE, {"task": "random", **LONG}, LONG, algorithm=RLPD),
    "kitchen": _experiment(
        "kitchen",
        {"id": "skild_ray/Kitchen-v0", "kwargs": {"task": "kbts", "observation": "qpos", "noise": "precise"}},
        {"task": "play", "max_episode_steps": 400},
        algorithm=ALGORITHM,
    ),
    "office": _experiment(
        "office",
        {"id": "skild_ray/Office-v0", "kwargs": {"start": "fixed"}},
        {"task": "random"},
        algorithm=ALGORITHM | {"env_reward_weight": 0.0},
    ),
}


def hashes(name: str, folder: Path) -> dict[str, str]:
    """Hash of the weights and metrics of every stage of one of RUNS, trained below `folder`, by '<run>/<stage>'."""
    experiment = Experiment.model_validate({"name": name, "runs": str(folder), **RUNS[name]})
    Run(experiment, report=lambda _: None).train_all()
    stages = sorted(path.parent for path in run_folder(experiment).glob("*/artifact.json"))
    return {
        f"{name}/{stage.name}": _hash(Artifact(stage, json.loads((stage / "artifact.json").read_text())))
        for stage in stages
    }


def _hash(artifact: Artifact) -> str:
    """First 16 hexadecimal digits of the SHA-256 of weights by name, and of metrics as they are written."""
    digest = hashlib.sha256()
    for name, weight in sorted(artifact.weights().items()):
        digest.update(f"{name}{tuple(weight.shape)}".encode())
        digest.update(weight.contiguous().numpy().tobytes())
    with (artifact.path / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            metrics = sorted((FIRST_NAMES.get(key, key), value) for key, value in row.items() if key not in TIMES)
            digest.update(repr(metrics).encode())
    return digest.hexdigest()[:16]


def kind_of_machine() -> dict[str, str]:
    """What the last bits of a result depend on besides the code."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = ("model name", "cpu family", "model", "stepping", "flags")
    known = {name: value for line in lines for name, _, value in [line.partition(":")] if name.strip() in names}
    return {
        "processor": platform.processor() or platform.machine(),
        "instructions": hashlib.sha256(repr(sorted(known.items())).encode()).hexdigest()[:16],
        "cores": str(os.cpu_count()),
        **{package: version(package) for package in ("torch", "numpy", "mujoco", "ray", "gymnasium")},
    }


def _of_revision(revision: str, folder: Path) -> dict[str, str]:
    """The hashes that this tool, as it is in another revision, makes there."""
    checkout, result = folder / "checkout", folder / "hashes.json"
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", checkout, revision], check=True)
    try:
        command = [sys.executable, "-m", "benchmarks.identity", "--json", str(result)]
        subprocess.run(command, cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)}, check=True)
        found: dict[str, str] = json.loads(result.read_text())
        return found
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", checkout], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="REVISION", help="git revision to compare this checkout with")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the hashes of this checkout here")
    parser.add_argument("--record", action="store_true", help="note the hashes of this checkout in tests/identity.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MINARI_DATASETS_PATH"] = f"{folder}/minari"
        mine = {key: value for name in RUNS for key, value in hashes(name, Path(folder) / "runs").items()}
        theirs = _of_revision(options.against, Path(folder)) if options.against else {}
    for key, value in mine.items():
        print(f"{key:32} {value}" + (f" {'equal' if theirs.get(key) == value else 'DIFFERENT'}" if theirs else ""))
    if options.json:
        options.json.write_text(json.dumps(mine, indent=2))
    if options.record:
        NOTE.write_text(json.dumps({"machine": kind_of_machine(), "hashes": mine}, indent=2) + "\n")
    if theirs and theirs != mine:
        sys.exit("this checkout learns otherwise")


if __name__ == "__main__":
    main()
