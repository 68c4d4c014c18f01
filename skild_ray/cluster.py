"""The Ray cluster that everything distributed runs on."""

import contextlib
import functools
import logging
import os
import socket
from collections.abc import Iterator

import grpc
import ray
from ray._private import services
from ray._private.grpc_utils import init_grpc_channel  # with the TLS that Ray's variables ask for
from ray._private.services import canonicalize_bootstrap_address
from ray.exceptions import AuthenticationError

from skild_ray.errors import SkildError, one_line
from skild_ray.interruption import keep_raising

ANSWER_TIMEOUT_S = 10.0
REMEDY = "unset RAY_ADDRESS to start a local one"


def connect() -> None:
    """Make sure that this process is connected to Ray.

    Joins the cluster that the environment variable RAY_ADDRESS names (`ray job submit` sets it); without one, starts a
    local instance that ends with the process.

    Raises:
        SkildError: there is no such cluster, it does not answer, it wants a token that we do not have, or Ray did not
            start.
    """
    address = os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # the default delays a stage's start by seconds
    if not address:  # nobody takes this machine away with notice: that process need not start with each stage
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    if ray.is_initialized():
        return
    local = {} if address else {"address": "local", "include_dashboard": False, "log_to_driver": False}
    if address and address != "local":
        _require_answer(address)
    try:
        with _apart_from_our_group():
            try:
                ray.init(logging_level=logging.ERROR, **local)
            except Exception:
                if address:
                    raise
                ray.shutdown()  # Ray gives up on its own start after 30 s, which a busy machine can exceed: once more
                ray.init(logging_level=logging.ERROR, **local)
    except Exception as error:  # it raises plain Exceptions, too
        if refused := _refused_token(error):
            raise SkildError(
                f"cannot connect to Ray at {address}: {refused}; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or "
                "RAY_AUTH_TOKEN_PATH to the token of the cluster"
            ) from error
        if address:
            raise SkildError(f"cannot connect to Ray at {address}: {one_line(error)}; {REMEDY}") from error
        raise SkildError(f"cannot start Ray: {one_line(error)}") from error
    keep_raising()
    logging.getLogger("ray.rllib").setLevel(logging.ERROR)  # it announces its API stack at every start
    # A lost env runner gets one line of ours instead of a traceback.
    logging.getLogger("ray.rllib.utils.actor_manager").setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _apart_from_our_group() -> Iterator[None]:
    """Within the `with` block Ray starts its processes in groups of their own.

    A signal to our group (`timeout`, Slurm, a closed terminal) would end them while we still write a checkpoint with
    their help. They end with us nevertheless: Linux ends them when their parent dies.
    """
    popen = services.ConsolePopen
    services.ConsolePopen = functools.partial(popen, process_group=0)
    try:
        yield
    finally:
        services.ConsolePopen = popen


def is_local() -> bool:
    """Whether Ray is an instance that this process has started: it has this machine's resources and never more."""
    node = ray._private.worker.global_worker.node
    return bool(node and node.head)


def _require_answer(address: str) -> None:
    """Raise SkildError unless a cluster answers at `address`, any that RAY_ADDRESS may hold.

    Ray itself would wait for one without end, deaf to signals.
    """
    kind, separator, place = address.rpartition("://")
    try:
        if kind not in ("", "ray"):
            raise ValueError("that is an address for ray job submit; a driver takes HOST:PORT, of port 6379 by default")
        server = place.partition("/")[0] if separator else canonicalize_bootstrap_address(place)
        host, _, port = server.rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 2**16):
            raise ValueError("that is not HOST:PORT")
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_TIMEOUT_S):
            pass
        with init_grpc_channel(f"{host}:{port}") as channel:
            grpc.channel_ready_future(channel).result(ANSWER_TIMEOUT_S)
    except grpc.FutureTimeoutError:
        reason = "what answers there is not Ray"
    except ValueError as error:
        reason = one_line(error)
    except ConnectionRefusedError:
        reason = "nothing answers there"
    except TimeoutError:
        reason = f"nothing answers there within {ANSWER_TIMEOUT_S:.0f} s"
    except OSError as error:
        reason = error.strerror or one_line(error)
    else:
        return
    raise SkildError(f"cannot connect to Ray at {address}: {reason}; {REMEDY}")


def _refused_token(error: BaseException | None) -> str | None:
    """What Ray says of our token, where that is why it failed: as such, or deep in what it was raised from."""
    while error is not None:
        if isinstance(error, AuthenticationError):
            return " ".join(error.message.split()).rstrip(".")
        if "InvalidAuthToken" in str(error):
            return "it wants another token than ours"
        error = error.__cause__ or error.__context__
    return None
