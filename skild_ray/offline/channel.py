"""What the workers of a Ray Train job and its driver say to each other.

The actor between them is a process of its own, so this module imports nothing that takes long to load.
"""

from typing import TYPE_CHECKING, Any, TypeAlias

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from skild_ray.errors import SkildError, last_line

if TYPE_CHECKING:
    from skild_ray.tracking import MetricsRow

Event: TypeAlias = "list[MetricsRow] | MetricsRow | str"
"""The rows up to the checkpoint whenever workers have started; then each new row; the reason of a failure."""


class Channel:
    """From rank 0 to the driver what happens, the other way the wish to stop. Lives on the driver's node."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    @classmethod
    def here(cls) -> "Channel":
        """A new one."""
        node = ray.get_runtime_context().get_node_id()
        options = {
            "num_cpus": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
            # A machine short of memory may kill it: what it held is a few lines of a log, not the training.
            "max_restarts": -1,
            "max_task_retries": -1,
        }
        return cls(ray.remote(_Mailbox).options(**options).remote())

    def say(self, event: Event) -> None:
        ray.get(self._actor.put.remote(event))

    def events(self) -> list[Event]:
        """What was said since the last call.

        Raises:
            SkildError: Ray has lost the way there, mostly with the head of the cluster.
        """
        try:
            events: list[Event] = ray.get(self._actor.take.remote())
        except RayError as error:
            raise SkildError(
                f"the Train workers are out of reach: {last_line(error)}; the same command resumes"
            ) from error
        return events

    def stop(self) -> None:
        """Ask the workers to write a checkpoint and end."""
        ray.get(self._actor.stop.remote())

    def stop_is_wanted(self) -> bool:
        return bool(ray.get(self._actor.stop_is_wanted.remote()))

    def close(self) -> None:
        ray.kill(self._actor)


class _Mailbox:
    def __init__(self) -> None:
        self._events: list[Event] = []
        self._stop = False

    def put(self, event: Event) -> None:
        self._events.append(event)

    def take(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def stop(self) -> None:
        self._stop = True

    def stop_is_wanted(self) -> bool:
        return self._stop
