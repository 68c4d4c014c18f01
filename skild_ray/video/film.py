"""Videos of recorded episodes.

`film` runs this module as a program of its own: which OpenGL library MuJoCo takes is decided when it is imported, a
library that is missing or broken may fail in any way there, and the evaluating process needs none. The recorded actions
are played again with the recorded seed, so what is seen is the episode that was counted.
"""

import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from skild_ray.envs.registry import make_env
from skild_ray.errors import SkildError, one_line
from skild_ray.video.captions import Captions
from skild_ray.video.recording import Recording, key_steps

logger = logging.getLogger(__name__)

FRAMES_PER_S = 12
MAX_FRAMES = 150
"""Of a video, give or take the key frames: 12 s whatever the environment's pace; captions tell the env step."""
LARGEST_SIDE, KEY_FRAME_SIDE = 480, 320
RENDER_MODE = "rgb_array"
NOT_REPEATABLE = 3
INSTALL = "install libEGL (apt: libegl1 libgl1-mesa-dri) or libOSMesa (apt: libosmesa6) and run the same command again"


def film(recordings: Sequence[Path]) -> None:
    """Write the video `.mp4`, and key frames `_STEP.jpg`, beside each recording that has none yet.

    Prints a line a video, or a single one that says why there are none.
    """
    missing = [path for path in recordings if path.exists() and not path.with_suffix(".mp4").exists()]
    if not missing:
        return
    reasons: list[str] = []
    for backend in _backends():
        variables = os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
        if backend:
            variables["MUJOCO_GL"] = backend
        # It imports from where this process does, from no other folder (-P).
        command = [sys.executable, "-P", "-m", "skild_ray.video.film", *map(os.fspath, missing)]
        done = subprocess.run(
            command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
        )
        if done.returncode == 0:
            for path in missing:
                logger.info(f"video: {path.with_suffix('.mp4')}")
            return
        reason = (done.stderr.strip().splitlines() or [f"ended with exit code {done.returncode}"])[-1]
        if done.returncode == NOT_REPEATABLE:
            logger.warning(f"no video: {reason}")
            return
        reasons.append(f"{backend}: {reason}" if backend else reason)
    logger.warning(f"no video: nothing renders here ({'; '.join(reasons)}); {INSTALL}")


def _backends() -> list[str | None]:
    """What to try for MuJoCo, in this order: what the user chose, or all that need no screen."""
    if chosen := os.environ.get("MUJOCO_GL"):
        return [chosen]
    return ["egl", "osmesa"] if sys.platform == "linux" else [None]


def main(paths: Sequence[str]) -> None:
    """The program: film these recordings."""
    for path in paths:
        try:
            _film(Path(path))
        except Exception as error:  # whatever an environment, or a broken library, raises
            kind = "" if isinstance(error, SkildError) else f"{type(error).__name__}: "
            print(kind + one_line(error), file=sys.stderr, flush=True)
            # At once: half-made OpenGL contexts raise again, and say something else, when they are cleared away.
            os._exit(NOT_REPEATABLE if isinstance(error, _NotRepeatableError) else 1)


class _NotRepeatableError(SkildError):
    pass


def _film(path: Path) -> None:
    recording = Recording.load(path)
    environment, length = recording.environment, len(recording.actions)
    env = make_env(environment.id, environment.arguments | {"render_mode": RENDER_MODE})
    keys = key_steps(recording.subtasks, recording.credited_at, length)
    shown = {*range(0, length, -(-length // MAX_FRAMES)), *keys}
    frames: list[Image.Image] = []
    key_frames: dict[int, Image.Image] = {}
    captions: Captions | None = None
    try:
        observation, _ = env.reset(seed=recording.seed)
        for step in range(length + 1):
            if step:
                observation = env.step(recording.actions[step - 1])[0]
            if step in shown:
                picture = _picture(env.render())
                captions = captions or Captions(recording.subtasks, length, picture.size)
                frames.append(captions.above(picture, step, recording.credited_at))
                if step in keys:
                    key_frames[step] = picture
    finally:
        env.close()
    if not np.array_equal(np.asarray(observation, np.float32), recording.last_observation):
        raise _NotRepeatableError(f"environment {environment.id!r} goes another way with the same seed and actions")
    for step, picture in key_frames.items():
        picture.thumbnail((KEY_FRAME_SIDE, KEY_FRAME_SIDE))
        picture.save(key_frame(path, step), quality=80)
    _encode(frames + frames[-1:] * FRAMES_PER_S, path.with_suffix(".mp4"))


def key_frame(recording: Path, step: int) -> Path:
    """Where the picture of an env step lies."""
    return recording.with_name(f"{recording.stem}_{step:04d}.jpg")


def _picture(rendered: Any) -> Image.Image:
    picture = Image.fromarray(np.asarray(rendered, np.uint8)).convert("RGB")
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return picture


def _encode(frames: Sequence[Image.Image], path: Path) -> None:
    """H.264 that every browser plays, complete or absent."""
    import av

    draft = path.with_suffix(".part")
    with av.open(os.fspath(draft), "w", format="mp4", options={"movflags": "faststart"}) as file:
        stream = file.add_stream("libx264", rate=FRAMES_PER_S, options={"crf": "26"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_image(frame)))
        file.mux(stream.encode())
    os.replace(draft, path)


if __name__ == "__main__":
    main(sys.argv[1:])
