"""Joining a cluster: what RAY_ADDRESS can hold, and clusters that are not there."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

TRY_ALL = """
import json, os, sys
from skild_ray import cluster
from skild_ray.errors import SkildError
cluster.ANSWER_TIMEOUT_S = 1.0
for address in json.loads(sys.argv[1]):
    os.environ["RAY_ADDRESS"] = address
    try:
        cluster.connect()
    except SkildError as error:
        print(error)
"""


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A port on which something listens that says nothing."""
    with socket.socket() as server:
        server.bind(("", 0))
        server.listen()
        yield server


def test_an_address_without_a_cluster_is_one_line(silent: socket.socket) -> None:
    with socket.socket() as unused:
        unused.bind(("", 0))
        refused, port = unused.getsockname()[1], silent.getsockname()[1]
        reasons = {
            f"127.0.0.1:{refused}": "nothing answers there",
            f"ray://127.0.0.1:{refused}": "nothing answers there",
            f"127.0.0.1:{port}": "what answers there is not Ray",
            f"ray://127.0.0.1:{port}": "what answers there is not Ray",
            f"http://127.0.0.1:{port}": "that is an address for ray job submit; a driver takes HOST:PORT, of port 6379 "
            "by default",
            "head": "Invalid address format: head",
            "head:port": "that is not HOST:PORT",
            "127.0.0.1:99999": "that is not HOST:PORT",
        }
        command = [sys.executable, "-c", TRY_ALL, json.dumps(list(reasons))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"cannot connect to Ray at {address}: {reason}; unset RAY_ADDRESS to start a local one"
        for address, reason in reasons.items()
    ]
    assert done.stderr == ""


def test_ctrl_c_ends_the_waiting_for_a_cluster(silent: socket.socket) -> None:
    environment = os.environ | {"RAY_ADDRESS": f"ray://127.0.0.1:{silent.getsockname()[1]}"}
    # What a shell starts in the background ignores it, and so would this program.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "from skild_ray.cluster import connect; connect()"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        first, _ = silent.accept()  # the first look at the port; the second one waits for an answer
        second, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate()[1]
        first.close()
        second.close()
