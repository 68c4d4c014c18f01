"""A cluster of three real nodes on this machine: jobs are submitted to it, a driver and a node are killed."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from small_maze import EXPERIMENT

from skild_ray.runs.artifacts import open_artifact

REPOSITORY = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
STAGES = ["skill_prior", "skill_posterior", "demo_discriminator", "demo_rl"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _kill_tree(process: psutil.Process) -> None:
    """Kill a process and all it has started, without warning."""
    for part in (process, *process.children(recursive=True)):
        try:
            part.kill()
        except psutil.NoSuchProcess:
            continue


class Cluster:
    """A head without cores, two worker nodes with one core each, and a checkout to submit from.

    Jobs, nodes and their processes see the same environment, in which the cluster wants a token.
    """

    def __init__(self, folder: Path) -> None:
        self.checkout, self.runs = folder / "checkout", folder / "runs"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "skild_ray", self.checkout / "skild_ray", ignore=ignored)
        rollout = EXPERIMENT["rollout"] | {"num_env_runners": 2}
        algorithm = EXPERIMENT["algorithm"] | {"total_env_steps": 12_000}
        content = EXPERIMENT | {"runs": str(self.runs), "rollout": rollout, "algorithm": algorithm}
        (self.checkout / "small.yaml").write_text(yaml.safe_dump(content))
        (folder / "minari").mkdir()
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHONPATH"))
        } | {
            "RAY_AUTH_MODE": "token",
            "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "OMP_NUM_THREADS": "1",
            "MINARI_DATASETS_PATH": str(folder / "minari"),
        }
        # Socket paths may have a hundred letters only.
        self._temporary = Path(tempfile.mkdtemp(prefix="ray"))
        self._port, self._dashboard_port = _free_port(), _free_port()
        self.dashboard = f"http://127.0.0.1:{self._dashboard_port}"
        self.address = f"{socket.gethostbyname(socket.gethostname())}:{self._port}"
        self.nodes: list[psutil.Process] = []

    def start(self) -> None:
        self._add_node("--head", f"--port={self._port}", f"--dashboard-port={self._dashboard_port}", "--num-cpus=0")
        for _ in range(2):
            self._add_node(f"--address={self.address}", "--num-cpus=1")

    def stop(self) -> None:
        for node in self.nodes:
            _kill_tree(node)
        shutil.rmtree(self._temporary, ignore_errors=True)

    def submit(self) -> subprocess.Popen[str]:
        """What the README tells to type."""
        job = ("skild-ray", "pipeline", "small.yaml")
        return self._popen("ray", "job", "submit", "--working-dir", ".", "--", *job)

    def join_with(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Let a driver in this process' place join the cluster, with variables of the environment changed."""
        return subprocess.run(
            [sys.executable, "-c", "from skild_ray.cluster import connect; connect()"],
            # Ray asks 20 times, a second apart, before it believes that a token is wrong.
            env=self.environment | {"RAY_ADDRESS": self.address, "RAY_NUM_REDIS_GET_RETRIES": "1"} | environment,
            cwd=self.checkout,
            capture_output=True,
            text=True,
            check=False,
        )

    def driver(self) -> psutil.Process | None:
        """The process on the cluster that the job consists of."""
        for process in self.nodes[0].children(recursive=True):
            try:
                if any(part.endswith("skild-ray") for part in process.cmdline()[:2]):
                    return process
            except psutil.NoSuchProcess:
                continue
        return None

    def _add_node(self, *options: str) -> None:
        """Start a node; once more where Ray gives up after 30 s, which a busy machine can exceed."""
        command = ("ray", "start", "--block", "--disable-usage-stats", "--min-worker-port=0", "--max-worker-port=0")
        clock = threading.Event()
        for _ in range(2):
            # A folder of its own, as on a machine of its own: in a shared one a node that unpacks the job's checkout
            # removes it under the feet of the others.
            folder = Path(tempfile.mkdtemp(dir=self._temporary, prefix=""))
            own = (f"--temp-dir={folder}", f"--dashboard-agent-listen-port={_free_port()}")
            process = self._popen(*command, *own, *options, stdout=subprocess.DEVNULL)
            self.nodes.append(psutil.Process(process.pid))
            while process.poll() is None:
                if any(folder.glob("session_*/sockets/raylet*")) and _listens(self._dashboard_port):
                    return
                clock.wait(0.2)
            self.nodes.pop()
        raise AssertionError(f"ray start {' '.join(options)} failed twice")

    def _popen(self, program: str, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
        path = os.pathsep.join((str(PROGRAMS), self.environment["PATH"]))
        return subprocess.Popen(
            [PROGRAMS / program, *arguments],
            env=self.environment | {"PATH": path, "RAY_API_SERVER_ADDRESS": self.dashboard},
            cwd=self.checkout,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _until(job: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """Wait while the job runs."""
    clock = threading.Event()
    while not reached():
        assert job.poll() is None, job.communicate()[0]
        clock.wait(0.05)


@pytest.mark.parametrize("environment", [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "another" * 8}])
def test_without_the_token_it_is_one_line(cluster: Cluster, environment: dict[str, str]) -> None:
    result = cluster.join_with(**environment)
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("skild_ray.errors.SkildError: cannot connect to Ray")
    assert "RAY_AUTH_TOKEN_PATH" in last


def test_a_job_survives_its_driver_and_a_node(cluster: Cluster) -> None:
    run = cluster.runs / "small"

    def checkpoints() -> list[Path]:
        return sorted((run / ".work").glob("demo_rl-*/checkpoint_*"))

    first = cluster.submit()
    _until(first, lambda: len(checkpoints()) >= 2)
    driver = cluster.driver()
    assert driver is not None
    driver.kill()
    output = first.communicate()[0]
    assert first.returncode != 0, "the job failed"
    assert "demo_rl: 2 env runners, on 2 nodes" in output
    newest = int(checkpoints()[-1].name.removeprefix("checkpoint_"))
    assert newest < 12_000

    second = cluster.submit()
    _until(second, lambda: bool(checkpoints()) and int(checkpoints()[-1].name.removeprefix("checkpoint_")) > newest)
    _kill_tree(cluster.nodes.pop())
    output = second.communicate()[0]
    assert second.returncode == 0, output
    for stage in STAGES[:3]:
        assert f"{stage}: up to date" in output
    assert f"resumed at {newest} env steps" in output, "no more than one checkpoint interval is done again"
    (lost,) = [line for line in output.splitlines() if line.startswith("env runner") and "lost" in line]
    assert "1 of 2 go on" in lost
    assert "report: " in output
    facts = open_artifact(run, "demo_rl").facts
    assert facts["lost_runners"] == 1
    assert 10_000 < facts["env_steps"] <= 12_000
