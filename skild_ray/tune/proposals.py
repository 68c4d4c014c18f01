"""What Tune asks for its next trial: configurations whose offline artifacts are there."""

import logging
import pickle
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from skild_ray.config import with_values
from skild_ray.plugins import import_extra
from skild_ray.tune.offline import OfflineRuns
from skild_ray.tune.sweep import Sweep, Values

logger = logging.getLogger(__name__)


class Listed(Searcher):
    """Proposes configurations in order."""

    def __init__(self, configurations: list[Values]) -> None:
        super().__init__()
        self._left = configurations

    def suggest(self, trial_id: str) -> Any:
        return self._left.pop(0) if self._left else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None: ...


def searcher(sweep: Sweep) -> Searcher:
    """The sweep's search algorithm.

    Raises:
        ConfigError: it is Optuna, which is not installed.
    """
    if sweep.search != "optuna":
        return Listed(sweep.configurations())
    optuna = import_extra("optuna", "tune", "search: optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=sweep.search_seed)
    space = OptunaSearch.convert_search_space({key: dimension.domain for key, dimension in sweep.space.items()})
    return OptunaSearch(space=space, metric=sweep.metric, mode=sweep.mode, sampler=sampler)


class Proposals(Searcher):
    """Passes on what a search algorithm proposes, once the offline artifacts for it have been trained.

    Until then Tune is told to ask again, and runs the trials it has. A configuration whose offline stages fail is
    passed on, too: its trial says what is missing.
    """

    def __init__(self, sweep: Sweep) -> None:
        super().__init__(metric=sweep.metric, mode=sweep.mode)
        self._sweep = sweep
        self._search = searcher(sweep)
        self._names: dict[str, str] = {}  # the name under which the search knows a trial; it proposed before Tune asked
        self._next: tuple[str, Values] | None = None
        self._offline: OfflineRuns | None = None

    def set_search_properties(self, metric: str | None, mode: str | None, config: Any, **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next configuration; None while there is none yet, FINISHED after the last."""
        if self._next is None:
            proposal: Any = self._search.suggest(trial_id)
            if proposal is None or proposal == Searcher.FINISHED:
                return proposal
            self._next = trial_id, {"seed": self._sweep.base.seed, **proposal}
        name, values = self._next
        training = self._require(values)
        if not training.done():
            return None
        if error := training.exception():
            logger.warning(f"the offline stages of {values} failed: {error}")
        self._names[trial_id], self._next = name, None
        return values

    def _require(self, values: Values) -> Future[None]:
        if self._offline is None:
            self._offline = OfflineRuns(self._sweep.folder, self._sweep.offline_stages)
        return self._offline.require(with_values(self._sweep.base, values))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        name = self._names.get(trial_id)  # none, if the trial began after what a killed sweep last saved
        if name and self._sweep.metric in result:
            self._search.on_trial_result(name, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if name := self._names.get(trial_id):
            self._search.on_trial_complete(name, result, error)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_offline": None}

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).write_bytes(pickle.dumps((self._search, self._names, self._next)))

    def restore(self, checkpoint_path: str) -> None:
        self._search, self._names, self._next = pickle.loads(Path(checkpoint_path).read_bytes())
