"""The Ray cluster that everything distributed runs on."""

import logging
import os

import ray


def connect() -> None:
    """Make sure that this process is connected to Ray.

    Joins the cluster that the environment variable RAY_ADDRESS names (`ray job submit` sets it); without one, starts a
    local instance that ends with the process.
    """
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")  # the default delays a stage's start by seconds
    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.ERROR)
    else:
        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
