"""robomimic's HDF5 files and LIBERO's, and files that are not as they should be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import pytest
import torch
from line_world import LineEnv
from pretrained import tiny_experiment
from typer.testing import CliRunner

from skild_ray.cli import app
from skild_ray.config import Source
from skild_ray.data.episode import Episode
from skild_ray.data.formats import Stored, load_dataset, load_rewarded_episodes
from skild_ray.data.minari_store import MinariWriter
from skild_ray.data.windows import WindowSampler
from skild_ray.envs import make_env
from skild_ray.errors import DataError
from skild_ray.offline.problem import Inputs
from skild_ray.offline.skill_prior import SkillPriorProblem
from skild_ray.offline.training_run import TrainingRun

KEYS = ("robot0_eef_pos", "object")
LENGTHS = {"demo_0": 4, "demo_2": 6, "demo_10": 5}
"""Actions of each episode, in the order of their numbers."""


def write(path: Path, next_obs: bool = True) -> str:
    """As robomimic's `dataset_states_to_obs.py` writes, with observations of one number each under `object`."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["mask/train"], file["mask/valid"] = np.array([b"demo_10", b"demo_2"]), np.array([b"demo_0"])
        file.create_group("data").attrs["env_args"] = '{"env_name": "Lift", "env_type": 1, "env_kwargs": {}}'
        for name, length in LENGTHS.items():
            states = rng.uniform(size=(length + 1, 2))
            group = file.create_group(f"data/{name}")
            group.attrs["num_samples"] = length
            group["states"], group["actions"] = np.zeros((length, 30)), rng.uniform(-1, 1, (length, 1))
            group["rewards"], group["dones"] = np.arange(length) / length, np.arange(length) == length - 1
            for part, rows in (("obs", slice(0, length)), ("next_obs", slice(1, length + 1)))[: 1 + next_obs]:
                group[f"{part}/robot0_eef_pos"], group[f"{part}/object"] = states[rows, :1], states[rows, 1]
                group[f"{part}/agentview_image"] = np.zeros((length, 8, 8, 3), np.uint8)
    return str(path)


def test_episodes_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "low_dim.hdf5")
    data = load_dataset(Stored(path, KEYS), LineEnv())
    assert data.lengths.tolist() == list(LENGTHS.values())
    with h5py.File(path) as file:
        demo = file["data/demo_10"]
        states = np.column_stack([demo["obs/robot0_eef_pos"], demo["obs/object"]]).astype(np.float32)
        assert np.array_equal(data.episode(2)[0], states)
        assert np.array_equal(data.episode(2)[1], demo["actions"][()].astype(np.float32))
        (last,) = load_rewarded_episodes(Stored(path, KEYS, "valid"), LineEnv())
        assert last.observations[-1, 1] == np.float32(file["data/demo_0/next_obs/object"][-1])
    assert last.terminated and last.rewards.tolist() == [0, 0.25, 0.5, 0.75]
    # The order of the keys is the user's, their default the alphabet.
    assert np.array_equal(load_dataset(path).observations, data.observations[:, ::-1])
    assert np.array_equal(load_dataset(Stored(path, ("object",))).observations, data.observations[:, 1:])


def test_a_filter_takes_its_episodes(tmp_path: Path) -> None:
    path = write(tmp_path / "low_dim.hdf5")
    assert load_dataset(Stored(path, filter="train")).lengths.tolist() == [6, 5]
    with pytest.raises(DataError, match=r"low_dim\.hdf5: has no filter 'test'; it has train, valid"):
        load_dataset(Stored(path, filter="test"))
    np.savez(tmp_path / "line.npz", x=0)
    with pytest.raises(DataError, match=r"OGBench's .npz file has no named parts, such as 'train'"):
        load_dataset(Stored(str(tmp_path / "line.npz"), filter="train"))
    source = Source(dataset=path, observations=["object"], filter="train")
    assert load_dataset(Stored.of(source)).observation_dim == 1


def test_liberos_variant(tmp_path: Path) -> None:
    """No next_obs, more arrays beside the observations; the last state is not known."""
    path = write(tmp_path / "libero_demo.hdf5", next_obs=False)
    with h5py.File(path, "a") as file:
        file["data"].attrs.update({"problem_info": '{"language_instruction": "x"}', "bddl_file_name": "x.bddl"})
        file["data/demo_0/robot_states"] = np.zeros((4, 9))
    episodes = load_rewarded_episodes(Stored(path, KEYS), LineEnv())
    assert [len(e.observations) for e in episodes] == [len(e.actions) for e in episodes] == list(LENGTHS.values())


def test_on_the_command_line(tmp_path: Path, minari_root: Path) -> None:
    path = write(tmp_path / "low_dim.hdf5")
    done = CliRunner().invoke(app, ["data", "info", path, "--observations", "object", "--filter", "train"])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.replace("│", " ").split())
    assert "episodes 2" in text and "observations 1 dimensions" in text
    assert "agentview_image (8 x 8 x 3), object (1), robot0_eef_pos (1)" in text


def put(name: str, new: Any) -> Callable[[h5py.Group], None]:
    def change(group: h5py.Group) -> None:
        if name in group:
            del group[name]
        if new is not None:
            group[name] = new

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("actions", None), r"/data/demo_2 lacks 'actions'"),
        (put("actions", np.zeros((3, 1))), r"obs/robot0_eef_pos has 6 rows, .* the 3 of /data/demo_2/actions"),
        (put("actions", np.zeros((6, 1), "S1")), r"demo_2/actions is text"),
        (put("actions", np.zeros((0, 1))), r"demo_2/actions is empty"),
        (put("obs", None), r"demo_2 lacks 'obs': make observations from its states with robomimic"),
        (put("obs/object", None), r"episode 1: there are no observations 'object'; there are agentview_image \(8 x 8"),
        (put("obs/object", np.zeros((6, 4, 4), np.uint8)), r"observations 'object' are 4 x 4, and images are not read"),
        (put("obs/object", np.full(6, np.nan)), r"episode 1: observations must be finite: row 0, column 1"),
        (put("obs/object", np.zeros(5)), r"obs/object has 5 rows"),
        (put("next_obs/object", None), r"observations 'object' has 6 rows, .* the 7 of the first key"),
        (put("dones", np.full(6, 0.3)), r"demo_2/dones must be 0 or 1"),
    ],
)
def test_malformed_files_are_one_line(tmp_path: Path, change: Callable, message: str) -> None:
    path = write(tmp_path / "low_dim.hdf5")
    with h5py.File(path, "a") as file:
        change(file["data/demo_2"])
    with pytest.raises(DataError, match=message) as caught:
        load_rewarded_episodes(Stored(path, KEYS), LineEnv())
    assert "\n" not in str(caught.value) and path in str(caught.value)


def test_images_alone_are_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "image.hdf5")
    with h5py.File(path, "a") as file:
        for name in LENGTHS:
            del file[f"data/{name}/obs/object"], file[f"data/{name}/obs/robot0_eef_pos"]
    with pytest.raises(DataError, match=r"only images, which are not read yet: agentview_image \(8 x 8 x 3\)"):
        load_dataset(path)


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "low_dim.hdf5"))
    sound = path.read_bytes()
    for length in (0, 100, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:length])
        with pytest.raises(DataError, match=r"low_dim\.hdf5") as caught:
            load_dataset(f"robomimic:{path}")
        assert "\n" not in str(caught.value)


def test_an_episode_of_one_step(tmp_path: Path) -> None:
    path = write(tmp_path / "low_dim.hdf5")
    with h5py.File(path, "a") as file:
        group = file["data/demo_2"]
        for name in [
            name for name in ("actions", "rewards", "dones", *(f"{p}/{k}" for p in ("obs", "next_obs") for k in KEYS))
        ]:
            put(name, group[name][:1])(group)
    assert load_dataset(Stored(path, KEYS), LineEnv()).lengths.tolist() == [4, 1, 5]


def test_the_same_episodes_as_from_minari(tmp_path: Path, minari_root: Path) -> None:
    """Equal trajectories and windows, bit for bit: what a stage makes of a data set depends on nothing else."""
    rng, env = np.random.default_rng(0), LineEnv()
    episodes = [
        Episode(
            rng.normal(size=(13, 2)).astype(np.float32), rng.uniform(-1, 1, (12, 1)).astype(np.float32), np.ones(12)
        )
        for _ in range(12)
    ]
    with MinariWriter("line/play-v0", env.observation_space, env.action_space, {}) as writer:
        writer.append(episodes)
    with h5py.File(tmp_path / "play.hdf5", "w") as file:
        for index, episode in enumerate(episodes):
            group = file.create_group(f"data/demo_{index}")
            group["actions"], group["rewards"] = episode.actions, episode.rewards
            group["obs/position"], group["obs/goal"] = episode.observations[:-1, 0], episode.observations[:-1, 1]
            group["next_obs/position"], group["next_obs/goal"] = (
                episode.observations[1:, 0],
                episode.observations[1:, 1],
            )
    names = "line/play-v0", Stored(str(tmp_path / "play.hdf5"), ("position", "goal"))
    first, second = (load_dataset(name, env) for name in names)
    assert first.fingerprint() == second.fingerprint()
    windows = [WindowSampler([data], [1.0], horizon=5, seed=0) for data in (first, second)]
    for _ in range(3):
        (states, actions), (others, other_actions) = (sampler.sample(16) for sampler in windows)
        assert states.equal(others) and actions.equal(other_actions)


def test_real_kitchen_demonstrations_make_the_same_skill_model(real_data: Path, tmp_path: Path) -> None:
    """Human demonstrations, from Minari and in robomimic's layout: equal weights after stage 1's first updates."""
    human = "kitchen/teleop-complete15-v2"
    with h5py.File(tmp_path / "human.hdf5", "w") as file:
        for index, episode in enumerate(minari.load_dataset(human)):
            group, states = file.create_group(f"data/demo_{index}"), episode.observations["observation"]
            group["actions"], group["obs/robot"], group["obs/scene"] = (
                episode.actions,
                states[:-1, :18],
                states[:-1, 18:],
            )
            group["next_obs/robot"], group["next_obs/scene"] = states[1:, :18], states[1:, 18:]
    env = make_env("skild_ray/Kitchen-v0", {"observation": "franka"})
    sources = human, Stored(str(tmp_path / "human.hdf5"), ("robot", "scene"))
    first, second = (load_dataset(source, env) for source in sources)
    assert first.fingerprint() == second.fingerprint()
    weights = []
    for data in (first, second):
        torch.manual_seed(0)
        torch.set_num_threads(1)
        experiment = tiny_experiment(
            tmp_path, skill_prior={"iterations": 3, "batch_size": 16, "validation_samples": 64}
        )
        problem = SkillPriorProblem(Inputs(experiment, [data.select([0, 1, 2])], [], {}), seed=0)
        run = TrainingRun(problem, torch.device("cpu"), 1)
        while not run.finished:
            run.advance(lambda: False)
        weights.append(run.best_weights)
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
