"""What is settled before other libraries are imported, each time in a process of its own."""

import ctypes.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

STEP = """
from skild_ray.envs import make_env
env = make_env("skild_ray/Kitchen-v0", {"render_mode": "rgb_array"})
env.reset(seed=0)
env.step(env.action_space.sample())
try:
    env.render()
except Exception:
    print("nothing renders")
"""


def _run(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command, variables = [sys.executable, "-c", code], os.environ | environment
    return subprocess.run(command, env=variables, cwd=folder, capture_output=True, text=True, check=True)


@pytest.mark.parametrize("backend", ["osmesa", "telepathy"])
def test_without_its_opengl_library_mujoco_only_does_not_render(tmp_path: Path, backend: str) -> None:
    if backend == "osmesa" and ctypes.util.find_library("OSMesa"):
        pytest.skip("libOSMesa is installed")
    done = _run(STEP, tmp_path, MUJOCO_GL=backend)
    assert done.stdout == "nothing renders\n"


def test_without_its_opengl_library_dm_control_can_be_imported_too(tmp_path: Path) -> None:
    pytest.importorskip("ogbench", reason="the extra 'ogbench' is not installed")
    # RLlib imports it where it is installed.
    done = _run("import skild_ray, ray.rllib, dm_control.mjcf", tmp_path, MUJOCO_GL="telepathy")
    assert "DISPLAY" not in done.stderr


@pytest.mark.parametrize(
    ("given", "meant"), [("sets", "{cwd}/sets"), ("~/sets", "{cwd}/sets"), ("", "{cwd}/.minari/datasets")]
)
def test_the_data_folder_is_absolute(tmp_path: Path, given: str, meant: str) -> None:
    code = """
import os, skild_ray
from skild_ray.data.minari_store import datasets_root
os.chdir("/")
print(datasets_root())
"""
    done = _run(code, tmp_path, MINARI_DATASETS_PATH=given, HOME=str(tmp_path))
    assert done.stdout.strip() == meant.format(cwd=tmp_path)


def test_libraries_say_nothing_of_themselves(tmp_path: Path) -> None:
    code = """
import skild_ray, gymnasium_robotics
from ray.rllib.core.rl_module.rl_module import RLModuleConfig
RLModuleConfig()
"""
    done = _run(code, tmp_path)
    assert (done.stdout, done.stderr) == ("", "")
