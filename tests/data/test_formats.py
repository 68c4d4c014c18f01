from pathlib import Path

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from lerobot_files import write_lerobot
from line_world import ConvertingLineEnv, LineEnv
from minari.data_collector import EpisodeBuffer

from skild_ray.data.formats import Stored, load_dataset, load_with_orders
from skild_ray.data.importing import import_dataset
from skild_ray.data.orders import order_from_states
from skild_ray.envs import make_env
from skild_ray.errors import DataError
from skild_ray.generation.describe import describe_dataset, environment_of

# Minari wants an author and the like of every data set.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:minari")

LENGTHS = (5, 3, 4)
LINE_KEYS = ("position", "goal")


def episode(index: int, length: int, dimensions: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """`length` + 1 states and `length` actions, all different."""
    rng = np.random.default_rng(index)
    return rng.normal(size=(length + 1, dimensions)), rng.uniform(-1, 1, (length, 1))


EPISODES = [episode(index, length) for index, length in enumerate(LENGTHS)]
STATES = np.concatenate([states[:-1] for states, _ in EPISODES]).astype(np.float32)
ACTIONS = np.concatenate([actions for _, actions in EPISODES]).astype(np.float32)


def write_minari(name: str, nested: bool = False, episodes: list = EPISODES, data_format: str = "hdf5") -> None:
    dimensions, action_dimensions = episodes[0][0].shape[1], episodes[0][1].shape[1]
    space: spaces.Space = spaces.Box(-np.inf, np.inf, (dimensions,), np.float64)
    if nested:
        space = spaces.Dict(
            {"observation": space, "achieved_goal": spaces.Dict({"x": spaces.Box(-1, 1, (1,), np.float64)})}
        )
    buffers = []
    for states, actions in episodes:
        length = len(actions)
        goals = np.zeros((length + 1, 1))
        observations = {"observation": states, "achieved_goal": {"x": goals}} if nested else states
        ends = np.arange(length) == length - 1
        buffers.append(
            EpisodeBuffer(None, None, None, observations, actions, np.ones(length), ends, np.zeros(length, bool), {})
        )
    minari.create_dataset_from_buffers(
        name,
        buffers,
        observation_space=space,
        action_space=spaces.Box(-1, 1, (action_dimensions,), np.float64),
        data_format=data_format,
    )


def write_d4rl(path: Path, marks: dict[str, np.ndarray], **arrays: np.ndarray) -> str:
    contents = {"observations": STATES, "actions": ACTIONS, "rewards": np.ones(len(ACTIONS)), **marks, **arrays}
    with h5py.File(path, "w") as file:
        for name, array in contents.items():
            file[name] = array
    return str(path)


def ends(*rows: int) -> np.ndarray:
    marks = np.zeros(sum(LENGTHS), bool)
    marks[list(rows)] = True
    return marks


def write_spirl(folder: Path) -> str:
    """One trajectory a file but the first, which has two; all padded to 8 rows."""
    names = ["a/one.h5", "a/one.h5", "b.h5"]
    for index, ((states, actions), name) in enumerate(zip(EPISODES, names, strict=True)):
        (folder / name).parent.mkdir(exist_ok=True)
        with h5py.File(folder / name, "a") as file:
            group = file.create_group(f"traj{index if name[0] == 'a' else 0}")
            padding = 8 - len(actions)
            group["states"] = np.pad(states[:-1], ((0, padding), (0, 0)), constant_values=np.nan)
            group["actions"] = np.pad(actions, ((0, padding), (0, 0)), constant_values=np.nan)
            group["pad_mask"] = np.arange(8) < len(actions)
    return str(folder)


def write_ogbench(path: Path) -> str:
    """As OGBench's own generators do: a row for every state, with some action in the last one."""
    states = np.concatenate([states for states, _ in EPISODES])
    actions = np.concatenate([np.append(actions, [[99.0]], axis=0) for _, actions in EPISODES])
    terminals = np.concatenate([np.arange(length + 1) == length for length in LENGTHS])
    np.savez_compressed(path, observations=states, actions=actions, terminals=terminals, qpos=states, qvel=states)
    return str(path)


def write_robomimic(path: Path, keys: tuple[str, ...]) -> str:
    """The tree of robomimic's own writers: a column of the states under each key, an image, demo_16 after demo_8."""
    with h5py.File(path, "w") as file:
        for index, (states, actions) in enumerate(EPISODES):
            group = file.create_group(f"data/demo_{8 * index}")
            group.attrs["num_samples"] = len(actions)
            group["actions"], group["rewards"] = actions, np.ones(len(actions))
            group["dones"] = np.arange(len(actions)) == len(actions) - 1
            for column, key in enumerate(keys):
                group[f"obs/{key}"] = states[:-1, column : column + 1]
                group[f"next_obs/{key}"] = states[1:, column : column + 1]
            group["obs/camera_image"] = np.zeros((len(actions), 4, 4, 3), np.uint8)
        file["data"].attrs["env_args"] = '{"env_name": "Line", "env_type": 1, "env_kwargs": {}}'
    return str(path)


@pytest.fixture(params=["minari", "minari-dict", "d4rl", "spirl", "ogbench", "robomimic", "lerobot"])
def dataset(request: pytest.FixtureRequest, minari_root: Path, tmp_path: Path) -> str | Stored:
    """The same three episodes in each format."""
    if request.param == "robomimic":
        return Stored(write_robomimic(tmp_path / "demo.hdf5", LINE_KEYS), LINE_KEYS)
    if request.param == "lerobot":
        return write_lerobot(tmp_path / "robot", "v3.0", EPISODES)
    if request.param == "ogbench":
        return write_ogbench(tmp_path / "line-play-v0.npz")
    if request.param == "d4rl":
        return write_d4rl(tmp_path / "flat.hdf5", {"terminals": ends(4, 11), "timeouts": ends(7)})
    if request.param == "spirl":
        (tmp_path / "spirl").mkdir()
        return write_spirl(tmp_path / "spirl")
    write_minari("line/walk-v0", nested=request.param == "minari-dict")
    return "line/walk-v0"


def test_every_format_gives_the_same_trajectories(dataset: str | Stored) -> None:
    data = load_dataset(dataset, LineEnv())
    assert np.array_equal(data.observations, STATES)
    assert np.array_equal(data.actions, ACTIONS)
    assert tuple(data.lengths) == LENGTHS


def test_max_episodes_takes_the_first(dataset: str | Stored) -> None:
    data = load_dataset(dataset, None, max_episodes=2)
    assert tuple(data.lengths) == LENGTHS[:2]
    assert np.array_equal(data.observations, STATES[:8])


def test_import_writes_a_minari_data_set(dataset: str | Stored) -> None:
    env = LineEnv()
    assert import_dataset(dataset, "imported/walk-v0", env) == 3
    stored = list(minari.load_dataset("imported/walk-v0"))
    ended = dataset == "line/walk-v0" or isinstance(dataset, Stored)
    with_last_state = ended or str(dataset).endswith(".npz")
    for stored_episode, (states, actions) in zip(stored, EPISODES, strict=True):
        length = len(actions) if with_last_state else len(actions) - 1
        assert np.array_equal(stored_episode.observations, states[: length + 1].astype(np.float32))
        assert np.array_equal(stored_episode.actions, actions[:length].astype(np.float32))
    assert [bool(e.terminations[-1]) for e in stored] == [ended] * 3
    with pytest.raises(DataError, match="'imported/walk-v0' already"):
        import_dataset(dataset, "imported/walk-v0", env)
    with pytest.raises(DataError, match="no Minari id"):
        import_dataset(dataset, "imported walk", env)


def test_observations_are_converted_by_the_environment(dataset: str | Stored) -> None:
    assert load_dataset(dataset, ConvertingLineEnv()).observation_dim == 2
    name = dataset.name if isinstance(dataset, Stored) else dataset
    with pytest.raises(
        DataError, match=f"data set '{name}': episode 0: observations have 2 dimensions, the environment's have 3"
    ):
        load_dataset(dataset, LineEnv(dimensions=3))


def test_conversion_of_another_layout(minari_root: Path) -> None:
    write_minari("line/short-v0", episodes=[episode(0, 4, dimensions=1)])
    data = load_dataset("line/short-v0", ConvertingLineEnv())
    assert np.array_equal(data.observations, np.stack((data.observations[:, 0], np.ones(4)), 1, dtype=np.float32))
    write_minari("line/long-v0", episodes=[episode(0, 4, dimensions=3)])
    with pytest.raises(DataError, match="data set 'line/long-v0': episode 0: only a position can be converted"):
        load_dataset("line/long-v0", ConvertingLineEnv())


def test_other_minari_storage_formats(minari_root: Path) -> None:
    write_minari("line/walk-v0", data_format="arrow")
    assert np.array_equal(load_dataset("line/walk-v0").observations, STATES)


def test_actions_out_of_range_are_named(minari_root: Path) -> None:
    write_minari("line/walk-v0", episodes=[(np.zeros((3, 2)), np.array([[0.5], [-1.5]]))])
    with pytest.raises(
        DataError, match=r"'line/walk-v0': episode 0: actions must be in \[-1, 1\]: row 1, column 0 is -1.5"
    ):
        load_dataset("line/walk-v0", LineEnv())


def test_mismatch_of_actions_names_both_numbers(minari_root: Path) -> None:
    write_minari("line/walk-v0", episodes=[(np.zeros((3, 2)), np.zeros((2, 4)))])
    with pytest.raises(
        DataError, match="'line/walk-v0': episode 0: actions have 4 dimensions, the environment's have 1"
    ):
        load_dataset("line/walk-v0", LineEnv())


def test_nan_is_located(minari_root: Path) -> None:
    states, actions = episode(0, 6)
    states[2, 1] = np.nan
    write_minari("line/walk-v0", episodes=[EPISODES[0], (states, actions)])
    with pytest.raises(
        DataError, match="'line/walk-v0': episode 1: observations must be finite: row 2, column 1 is nan"
    ):
        load_dataset("line/walk-v0")


def test_missing_data_set_names_place_and_commands(minari_root: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset("D4RL/kitchen/mixed-v2")
    message = str(caught.value)
    assert str(minari_root) in message and "\n" not in message
    assert "skild-ray data download D4RL/kitchen/mixed-v2" in message and "skild-ray data generate" in message


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"gone\.hdf5: there is no such file or folder; a data set is a Minari id like 'name"
    ):
        load_dataset(str(tmp_path / "gone.hdf5"))
    with pytest.raises(DataError, match=r"gone: there is no such file or folder; "):
        load_dataset(str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"no \*\.h5 file"):
        load_dataset(str(tmp_path))


def test_unusable_flat_files(tmp_path: Path) -> None:
    path = tmp_path / "flat.hdf5"
    with pytest.raises(DataError, match="neither 'terminals' nor 'timeouts'"):
        load_dataset(write_d4rl(path, {}))
    with pytest.raises(DataError, match="'observations' has 11 rows, which do not go with the 12 of 'actions'"):
        load_dataset(write_d4rl(path, {"terminals": ends()}, observations=STATES[1:]))
    with h5py.File(path, "w") as file:
        file["actions"] = ACTIONS
    with pytest.raises(DataError, match=r"flat\.hdf5: lacks 'observations'; it has actions"):
        load_dataset(str(path))
    path.write_bytes(b"not HDF5")
    with pytest.raises(DataError, match=r"flat\.hdf5: cannot be read as HDF5"):
        load_dataset(str(path))


def test_rows_behind_the_last_mark_are_an_episode(tmp_path: Path) -> None:
    data = load_dataset(write_d4rl(tmp_path / "flat.h5", {"timeouts": ends(4)}))
    assert data.lengths.tolist() == [5, 7]


def test_truncated_minari_data_set(minari_root: Path) -> None:
    write_minari("line/walk-v0")
    path = minari_root / "line/walk-v0/data/main_data.hdf5"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(DataError, match=r"'line/walk-v0' in .* cannot be read"):
        load_dataset("line/walk-v0")


def test_unsuitable_spaces_are_named(minari_root: Path) -> None:
    buffer = EpisodeBuffer(
        None, None, None, np.zeros((3, 2)), np.zeros(2, int), np.ones(2), [False] * 2, [False, True], {}
    )
    minari.create_dataset_from_buffers(
        "line/discrete-v0", [buffer], observation_space=spaces.Box(-1, 1, (2,)), action_space=spaces.Discrete(2)
    )
    with pytest.raises(DataError, match="actions are Discrete"):
        load_dataset("line/discrete-v0")


def test_describe(minari_root: Path) -> None:
    write_minari("line/walk-v0")
    rows = dict(describe_dataset("line/walk-v0"))
    assert rows["episodes"] == "3" and rows["transitions"] == "12"
    assert rows["episode length"] == "min 3, mean 4.0, max 5"
    assert rows["observations"].startswith("2 dimensions, ")
    assert rows["fingerprint"] == load_dataset("line/walk-v0").fingerprint()
    assert "orders" not in dict(describe_dataset(write_d4rl(minari_root / "flat.h5", {"terminals": ends(4)})))


ORDERS = ["open, push", "open, push", "", "push, open, pull", "open, push"]


@pytest.fixture
def with_orders(minari_root: Path) -> str:
    """Five episodes of 3, 4, ..., 7 transitions with ORDERS in their metadata."""
    write_minari("line/walk-v0", episodes=[episode(index, 3 + index) for index in range(5)])
    minari.load_dataset("line/walk-v0").storage.update_episode_metadata(
        [{"subtasks": order} if order else {} for order in ORDERS]
    )
    return "line/walk-v0"


def test_description_of_orders(with_orders: str) -> None:
    rows = dict(describe_dataset(with_orders))
    assert [line.split() for line in rows["orders"].splitlines()] == [
        ["3", "(", "60.0%)", "open,", "push"],
        ["1", "(", "20.0%)", "none"],
        ["1", "(", "20.0%)", "push,", "open,", "pull"],
    ]
    assert [line.split(maxsplit=3) for line in rows["sub-task to sub-task"].splitlines()] == [
        ["3", "(", "60.0%)", "open -> push"],
        ["1", "(", "20.0%)", "push -> open"],
        ["1", "(", "20.0%)", "open -> pull"],
    ]
    assert rows["order of each episode"] == ("o open, pul pull, pus push\n0-1 o-pus; 2 none; 3 pus-o-pul; 4 o-pus")


def test_description_of_selected_episodes(with_orders: str) -> None:
    rows = dict(describe_dataset(with_orders, select=["open", "push"]))
    assert rows["episodes"] == "3 of 5" and rows["transitions"] == "14"
    assert rows["order of each episode"] == "o open, p push\n0-1 op; 4 op"
    with pytest.raises(DataError, match=r"'line/walk-v0': no episode .* push; .*: open, push \(3 episodes\); push, op"):
        describe_dataset(with_orders, select=["push"])


def test_select_takes_the_episodes_with_exactly_this_order(with_orders: str) -> None:
    assert load_dataset(with_orders, select=["open", "push"]).lengths.tolist() == [3, 4, 7]
    assert load_dataset(with_orders, max_episodes=2, select=("open", "push")).lengths.tolist() == [3, 4]
    assert load_dataset(with_orders, LineEnv(), select=["push", "open", "pull"]).lengths.tolist() == [6]
    with pytest.raises(
        DataError, match="'line/walk-v0': no episode solves exactly push, open; the most frequent orders"
    ):
        load_dataset(with_orders, select=["push", "open"])


def test_nothing_to_select_where_no_order_is_known(dataset: str | Stored) -> None:
    with pytest.raises(DataError, match="solves exactly goal; no order of its episodes is known"):
        load_dataset(dataset, LineEnv(), select=["goal"])


def test_orders_are_found_in_states() -> None:
    class Env(LineEnv):
        def solved(self, observations: np.ndarray) -> dict[str, np.ndarray]:
            if observations.shape[1] != 4:
                raise ValueError("four flags are needed")
            return {name: observations[:, index] > 0 for index, name in enumerate("abcd")}

    states = np.zeros((5, 4))
    states[2, 0] = states[1, 1] = states[4, 1] = states[0, 3] = 1
    assert order_from_states(states, Env()) == ("b", "a")
    assert order_from_states(states, LineEnv()) == order_from_states(states, None) == ()
    with pytest.raises(DataError, match="four flags"):
        order_from_states(states[:, :2], Env())


HUMAN = "kitchen/teleop-complete15-v2"
HUMAN_ORDER = ("microwave", "kettle", "light switch", "slide cabinet")


def test_real_kitchen_demonstrations_are_converted_exactly(real_data: Path, tmp_path: Path) -> None:
    raw = list(minari.load_dataset(HUMAN))
    franka = np.concatenate([e.observations["observation"][:-1] for e in raw]).astype(np.float32)
    actions = np.concatenate([e.actions for e in raw]).astype(np.float32)
    positions = np.concatenate((franka[:, :9], franka[:, 18:39]), axis=1)
    assert franka.shape == (3304, 59) and positions.shape == (3304, 30)
    envs = {layout: make_env("skild_ray/Kitchen-v0", {"observation": layout}) for layout in ("franka", "qpos", "d4rl")}
    goal = envs["d4rl"].reset(seed=0)[0][30:]
    d4rl = np.concatenate((positions, np.broadcast_to(goal, positions.shape)), axis=1)
    expected = {"franka": franka, "qpos": positions, "d4rl": d4rl}
    last = {"timeouts": np.isin(np.arange(3304), np.cumsum([len(e.actions) for e in raw]) - 1)}
    columns = {"actions": actions, "rewards": np.zeros(3304)}
    files = {
        name: write_d4rl(tmp_path / f"{name}.hdf5", last, observations=expected[name], **columns)
        for name in ("qpos", "d4rl")
    }
    for source, layouts in {HUMAN: expected, files["d4rl"]: ("qpos", "d4rl"), files["qpos"]: ("qpos", "d4rl")}.items():
        for layout in layouts:
            data = load_dataset(source, envs[layout])
            assert np.array_equal(data.observations, expected[layout]) and np.array_equal(data.actions, actions)
            assert data.lengths.tolist() == [len(e.actions) for e in raw]


def test_orders_of_real_kitchen_demonstrations(real_data: Path) -> None:
    environment = environment_of(HUMAN)
    assert environment is not None and environment.id == "skild_ray/Kitchen-v0"
    env = make_env(environment.id, {})
    assert load_with_orders(HUMAN, env)[1] == [HUMAN_ORDER] * 15
    rows = dict(describe_dataset(HUMAN, env))
    assert rows["order of each episode"].endswith("\n0-14 mkls")
    assert load_dataset(HUMAN, env, select=HUMAN_ORDER).num_episodes == 15
    with pytest.raises(DataError, match=r"exactly kettle; .*: microwave, kettle, light switch, slide cabinet \(15 epi"):
        load_dataset(HUMAN, env, select=["kettle"])


def test_import_keeps_orders_and_authors(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kitchen").mkdir()
    (tmp_path / HUMAN).symlink_to(real_data / HUMAN)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = make_env("skild_ray/Kitchen-v0", {"observation": "qpos"})
    assert import_dataset(HUMAN, "kitchen/imported-v0", env) == 15
    stored = minari.load_dataset("kitchen/imported-v0")
    assert load_with_orders("kitchen/imported-v0")[1] == [HUMAN_ORDER] * 15
    assert "microwave, kettle, light switch, slide cabinet" in stored.storage.metadata["description"]
    assert stored.storage.metadata["algorithm_name"] == "human teleoperation"
    raw = minari.load_dataset(HUMAN)[14]
    positions = raw.observations["observation"][:, np.r_[0:9, 18:39]]
    assert np.array_equal(stored[14].observations, positions.astype(np.float32))
    assert np.array_equal(stored[14].rewards, raw.rewards)
