"""The office's bodies in PyBullet: a desk with an arm, a tray, a bin, a drawer and seven objects.

Arm and tray come with PyBullet; everything else is made of boxes and cylinders. Lengths are in m; x points away from
the arm's base, which is the origin, y to its left and z up from the desk's top.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import pybullet
    import pybullet_data
    from pybullet_utils.bullet_client import BulletClient
except ImportError as error:
    raise ImportError("the office needs PyBullet: pip install 'skild_ray[office]'") from error

Vector = NDArray[np.float64]
Size = tuple[float, float, float]
Pose = tuple[tuple[float, ...], tuple[float, ...]]

STEP_S = 1 / 240
SOLVER_ITERATIONS = 20
# Iterations end early where they change no more than this.
SOLVER_RESIDUAL = 1e-4
SETTLING_STEPS = 20


@dataclass(frozen=True)
class Thing:
    """An object to tidy up: a box of `size`, or an upright cylinder with diameter size[0] = size[1].

    Attributes:
        size: lengths along x, y and z.
        mass: in kg.
        place: x and y of its place on the desk.
        colour: red, green, blue.
    """

    size: Size
    mass: float
    place: tuple[float, float]
    colour: Size
    is_round: bool = False

    @property
    def rest_height(self) -> float:
        """Of the centre when it stands on the desk."""
        return self.size[2] / 2


# The hand is 20 cm wide along y with its fingers around an object: tray, bin and drawer keep that distance.
OBJECTS: dict[str, Thing] = {
    "eraser": Thing((0.070, 0.032, 0.028), 0.05, (0.36, 0.08), (0.90, 0.90, 0.20)),
    "can": Thing((0.044, 0.044, 0.080), 0.06, (0.56, 0.08), (0.80, 0.10, 0.10), is_round=True),
    "block": Thing((0.044, 0.044, 0.044), 0.06, (0.46, 0.08), (0.10, 0.60, 0.20)),
    "bottle": Thing((0.040, 0.040, 0.075), 0.06, (0.51, -0.06), (0.20, 0.40, 0.90), is_round=True),
    "stapler": Thing((0.090, 0.028, 0.040), 0.08, (0.38, -0.06), (0.15, 0.15, 0.15)),
    "cup": Thing((0.050, 0.050, 0.060), 0.05, (0.66, 0.08), (0.95, 0.95, 0.95), is_round=True),
    "sponge": Thing((0.060, 0.040, 0.030), 0.03, (0.65, -0.06), (0.90, 0.50, 0.20)),
}

TRAY_PLACE, TRAY_SCALE = np.array([0.40, 0.33, 0.0]), 0.36
# Inside of the rim: half lengths along x and y, and the height below which an object lies in it.
TRAY_INSIDE, TRAY_RIM = (0.10, 0.10), 0.07

BIN_PLACE = np.array([0.62, 0.31, 0.0])
BIN_HALF, BIN_HEIGHT, BIN_WALL = 0.08, 0.10, 0.004
BIN_INSIDE, BIN_RIM = (BIN_HALF - 0.002, BIN_HALF - 0.002), 0.085

DRAWER_PLACE = np.array([0.50, -0.50, 0.0])
DRAWER_TRAVEL = 0.16
# Width, depth and height of the case, and the boards' thickness.
CASE: Size = (0.20, 0.18, 0.10)
BOARD = 0.008
DRAWER_WIDTH, DRAWER_DEPTH = CASE[0] - 2 * BOARD - 0.006, CASE[1] - 2 * BOARD
DRAWER_INSIDE, DRAWER_RIM = (DRAWER_WIDTH / 2, DRAWER_DEPTH / 2), 0.095
# The handle is a bar along x in front of the panel, with room for a finger behind it, and so high that the palm of a
# hand around it is above the case.
HANDLE = np.array([0.0, CASE[1] / 2 + BOARD + 0.060, 0.085])
DRAWER_FRICTION_N = 1.5

MONITOR_PLACE, LAMP_PLACE = np.array([0.0, 0.60, 0.0]), np.array([0.0, -0.60, 0.0])
FLOOR = -0.70

Box = tuple[Size, Size]  # lengths, centre


class Scene:
    """One world with all bodies.

    `build` makes it anew from nothing: bodies that are only put back keep what the solver remembers of them.

    Args:
        is_visible: whether the bodies can be rendered, for which meshes are loaded; it changes no motion.

    Attributes:
        client: PyBullet's functions, for this world.
        arm, drawer: ids of their bodies.
        objects: id of each object's body, by name.
    """

    def __init__(self, is_visible: bool):
        self.client = _Client()
        self._is_visible = is_visible
        self.arm = self.drawer = -1
        self.objects: dict[str, int] = {}

    def build(self, places: Mapping[str, tuple[float, float, float]], opening: float) -> None:
        """Empty the world and fill it: objects stand at (x, y, yaw), the drawer is open by `opening` m."""
        client = self.client
        client.resetSimulation()
        client.setPhysicsEngineParameter(
            fixedTimeStep=STEP_S,
            numSolverIterations=SOLVER_ITERATIONS,
            solverResidualThreshold=SOLVER_RESIDUAL,
            enableConeFriction=1,
        )
        client.setGravity(0, 0, -9.81)
        self._box_body([((1.3, 1.7, 0.04), (0.4, 0.0, -0.02))], (0.80, 0.70, 0.60))
        client.createMultiBody(0, client.createCollisionShape(pybullet.GEOM_PLANE), -1, [0, 0, FLOOR])
        self.arm = self._load(_data("franka_panda/panda.urdf"))
        tray = self._load(_data("tray/traybox.urdf"), TRAY_PLACE, TRAY_SCALE)
        self._box_body(_bin(), (0.30, 0.50, 0.80), BIN_PLACE)
        self.drawer = self._load_drawer()
        if opening:
            client.resetJointState(self.drawer, 0, opening)
        self.objects = {name: self._object(OBJECTS[name], *place) for name, place in places.items()}
        if self._is_visible:
            client.changeVisualShape(tray, -1, rgbaColor=(0.55, 0.57, 0.60, 1))
            self._decorate()

    def object_pose(self, name: str) -> Pose:
        """Centre [3] and quaternion [4], x y z w, of an object."""
        pose: Pose = self.client.getBasePositionAndOrientation(self.objects[name])
        return pose

    def drawer_opening(self) -> float:
        """In m, from 0 to about DRAWER_TRAVEL."""
        return float(self.client.getJointState(self.drawer, 0)[0])

    def step(self, steps: int) -> None:
        """Simulate `steps` times STEP_S."""
        simulate = self.client.stepSimulation
        for _ in range(steps):
            simulate()

    def render(self, width: int, height: int) -> NDArray[np.uint8]:
        """A picture [height, width, 3] from in front of the desk, by PyBullet's renderer in software."""
        view = pybullet.computeViewMatrix((1.40, -0.08, 0.80), (0.38, -0.08, 0.05), (0, 0, 1))
        projection = pybullet.computeProjectionMatrixFOV(56, width / height, 0.1, 5)
        pixels = self.client.getCameraImage(
            width,
            height,
            view,
            projection,
            lightDirection=(0.6, -0.5, 1.5),
            shadow=0,
            renderer=pybullet.ER_TINY_RENDERER,
        )[2]
        picture: NDArray[np.uint8] = np.asarray(pixels, np.uint8).reshape(height, width, 4)[..., :3]
        return picture

    def close(self) -> None:
        """Give the world back."""
        if self.client.isConnected():
            self.client.disconnect()

    def _object(self, thing: Thing, x: float, y: float, yaw: float) -> int:
        client, half = self.client, [length / 2 for length in thing.size]
        if thing.is_round:
            shape = client.createCollisionShape(pybullet.GEOM_CYLINDER, radius=half[0], height=thing.size[2])
        else:
            shape = client.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half)
        visual = -1
        if self._is_visible and thing.is_round:
            visual = client.createVisualShape(
                pybullet.GEOM_CYLINDER, radius=half[0], length=thing.size[2], rgbaColor=(*thing.colour, 1)
            )
        elif self._is_visible:
            visual = client.createVisualShape(pybullet.GEOM_BOX, halfExtents=half, rgbaColor=(*thing.colour, 1))
        turned = pybullet.getQuaternionFromEuler((0, 0, yaw))
        body: int = client.createMultiBody(thing.mass, shape, visual, (x, y, thing.rest_height + 0.001), turned)
        client.changeDynamics(
            body,
            -1,
            lateralFriction=0.8,
            spinningFriction=0.005,
            rollingFriction=0.003,
            activationState=pybullet.ACTIVATION_STATE_ENABLE_SLEEPING,  # half of the time is saved
        )
        return body

    def _box_body(self, boxes: list[Box], colour: Size, place: Vector | None = None, is_solid: bool = True) -> int:
        """A static body of boxes."""
        client = self.client
        halves, centres = [[length / 2 for length in size] for size, _ in boxes], [centre for _, centre in boxes]
        kinds = [pybullet.GEOM_BOX] * len(boxes)
        solid = visual = -1
        if is_solid:
            solid = client.createCollisionShapeArray(kinds, halfExtents=halves, collisionFramePositions=centres)
        if self._is_visible:
            visual = client.createVisualShapeArray(
                kinds, halfExtents=halves, visualFramePositions=centres, rgbaColors=[(*colour, 1)] * len(boxes)
            )
        body: int = client.createMultiBody(0, solid, visual, (0, 0, 0) if place is None else place)
        return body

    def _load(self, file: str, place: Vector | None = None, scale: float = 1.0) -> int:
        flags = 0 if self._is_visible else pybullet.URDF_IGNORE_VISUAL_SHAPES
        body: int = self.client.loadURDF(
            file, (0, 0, 0) if place is None else place, useFixedBase=True, globalScaling=scale, flags=flags
        )
        return body

    def _load_drawer(self) -> int:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "drawer.urdf"
            file.write_text(_drawer_urdf())
            drawer = self._load(os.fspath(file), DRAWER_PLACE)
        # A motor that wants it to stand still is its friction.
        self.client.setJointMotorControl2(
            drawer, 0, pybullet.VELOCITY_CONTROL, targetVelocity=0, force=DRAWER_FRICTION_N
        )
        return drawer

    def _decorate(self) -> None:
        """Floor, monitor and lamp, which are only seen."""
        self._box_body([((4.0, 4.0, 0.01), (0.0, 0.0, FLOOR))], (0.45, 0.47, 0.50), is_solid=False)
        monitor: list[Box] = [
            ((0.02, 0.50, 0.30), (0.0, 0.0, 0.27)),
            ((0.03, 0.04, 0.14), (0.0, 0.0, 0.07)),
            ((0.14, 0.20, 0.01), (0.0, 0.0, 0.005)),
        ]
        lamp: list[Box] = [
            ((0.10, 0.10, 0.02), (0.0, 0.0, 0.01)),
            ((0.015, 0.015, 0.34), (0.0, 0.0, 0.18)),
            ((0.16, 0.07, 0.03), (0.06, 0.0, 0.35)),
        ]
        self._box_body(monitor, (0.12, 0.12, 0.14), MONITOR_PLACE, is_solid=False)
        self._box_body(lamp, (0.75, 0.68, 0.30), LAMP_PLACE, is_solid=False)


class _Client(BulletClient):
    """A client without a window. The original's constructor hands on options, which PyBullet prints."""

    def __init__(self) -> None:
        self._client = pybullet.connect(pybullet.DIRECT)
        self._pid = os.getpid()
        self._shapes: dict[int, object] = {}

    def __getattr__(self, name: str) -> Any:
        # A step calls some 30 functions: each is looked up once.
        function = self.__dict__[name] = super().__getattr__(name)
        return function


def _data(name: str) -> str:
    return os.path.join(pybullet_data.getDataPath(), name)


def _bin() -> list[Box]:
    width, height, wall = 2 * BIN_HALF, BIN_HEIGHT, 2 * BIN_WALL
    return [
        ((width, width, wall), (0.0, 0.0, BIN_WALL)),
        ((width, wall, height), (0.0, BIN_HALF, height / 2)),
        ((width, wall, height), (0.0, -BIN_HALF, height / 2)),
        ((wall, width, height), (BIN_HALF, 0.0, height / 2)),
        ((wall, width, height), (-BIN_HALF, 0.0, height / 2)),
    ]


def _drawer_urdf() -> str:
    """A case that is open in front, to +y, and in it a drawer with a handle that slides out."""
    width, depth, height = CASE
    board, inner, deep = BOARD, DRAWER_WIDTH, DRAWER_DEPTH
    wall, bottom = height - 2 * board - 0.012, 0.006
    case: list[Box] = [
        ((board, depth, height), (-width / 2, 0, height / 2)),
        ((board, depth, height), (width / 2, 0, height / 2)),
        ((width, board, height), (0, -depth / 2, height / 2)),
        ((width, depth, board), (0, 0, height)),
    ]
    drawer: list[Box] = [
        ((inner, deep, board), (0, 0, bottom)),
        ((board, deep, wall), (-(inner - board) / 2, 0, bottom + wall / 2)),
        ((board, deep, wall), ((inner - board) / 2, 0, bottom + wall / 2)),
        ((inner, board, wall), (0, -(deep - board) / 2, bottom + wall / 2)),
        ((width, board, wall + 0.01), (0, (depth + board) / 2, bottom + wall / 2)),
    ]
    y, z = float(HANDLE[1]), float(HANDLE[2])
    handle: list[Box] = [
        ((0.150, 0.012, 0.012), (0, y, z)),
        ((0.010, 0.055, 0.012), (-0.070, y - 0.030, z)),
        ((0.010, 0.055, 0.012), (0.070, y - 0.030, z)),
    ]
    return f"""<robot name="drawer">
    {_link("case", 0.0, case, 0.5, "0.45 0.32 0.20 1")}
    {_link("drawer", 0.4, drawer, 0.5, "0.70 0.55 0.35 1")}
    {_link("handle", 0.03, handle, 0.8, "0.20 0.20 0.20 1")}
    <joint name="slide" type="prismatic"><parent link="case"/><child link="drawer"/><axis xyz="0 1 0"/>
      <limit lower="0" upper="{DRAWER_TRAVEL}" effort="50" velocity="2"/></joint>
    <joint name="mount" type="fixed"><parent link="drawer"/><child link="handle"/></joint></robot>"""


def _link(name: str, mass: float, boxes: list[Box], friction: float, colour: str) -> str:
    shapes = ""
    for size, centre in boxes:
        shape = f"""<origin xyz="{_text(centre)}"/><geometry><box size="{_text(size)}"/></geometry>"""
        shapes += f"""<collision>{shape}</collision>
        <visual>{shape}<material name="{name}"><color rgba="{colour}"/></material></visual>"""
    return f"""<link name="{name}"><contact><lateral_friction value="{friction}"/></contact>
      <inertial><mass value="{mass}"/><inertia ixx="0.002" iyy="0.002" izz="0.002" ixy="0" ixz="0" iyz="0"/></inertial>
      {shapes}</link>"""


def _text(numbers: Size) -> str:
    return " ".join(map(str, numbers))
