"""What is settled in every process, the driver's and those of Ray, before other libraries look at it."""

import contextlib
import importlib
import logging
import os
import sys
import warnings

from farama_notifications import notifications


def make_data_folder_absolute() -> None:
    """MINARI_DATASETS_PATH as an absolute path, without `~`: Minari takes it as it is, and workers run elsewhere."""
    if folder := os.environ.get("MINARI_DATASETS_PATH"):
        os.environ["MINARI_DATASETS_PATH"] = os.path.abspath(os.path.expanduser(folder))
    else:
        os.environ.pop("MINARI_DATASETS_PATH", None)  # an empty one would mean the working directory to Minari


def silence_notices() -> None:
    """Keep what libraries print about themselves, whoever imports them, out of the user's lines."""
    # On environments that are not used here, at every import.
    notifications.pop("gymnasium_robotics", None)
    # RLlib deprecates a class that it still instantiates itself in every RLModule.
    logging.getLogger("ray._common.deprecation").addFilter(lambda record: "RLModuleConfig" not in record.getMessage())
    # RLlib imports dm_control where it is installed, which looks for a screen.
    warnings.filterwarnings("ignore", message=".*DISPLAY environment variable is missing")


def import_mujoco() -> None:
    """Import MuJoCo, without renderers where the OpenGL library that MUJOCO_GL asks for is missing.

    MuJoCo loads that library when it is imported, and cannot be imported without it. Only rendering needs it: that
    fails then, when something is rendered.
    """
    chosen = os.environ.get("MUJOCO_GL")
    if not chosen or "mujoco" in sys.modules:
        return
    try:
        importlib.import_module("mujoco")
    except Exception:  # of PyOpenGL, in many ways
        os.environ["MUJOCO_GL"] = "disable"
        try:
            importlib.import_module("mujoco")
            with contextlib.suppress(ImportError):  # it does the same, and RLlib imports it where it is installed
                importlib.import_module("dm_control._render")
        finally:
            os.environ["MUJOCO_GL"] = chosen
