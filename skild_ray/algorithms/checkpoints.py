"""Checkpoints of stage 4 on disk: complete or absent, verified before they are used."""

import json
import logging
import shutil
from pathlib import Path

from skild_ray.algorithms.off_policy import OffPolicy
from skild_ray.runs import storage
from skild_ray.runs.artifacts import file_hash, writable
from skild_ray.tracking import MetricsRow

logger = logging.getLogger(__name__)

PREFIX = "checkpoint_"
ROWS_FILE, HASHES_FILE = "rows.json", "sha256.json"


def save_checkpoint(algo: OffPolicy, work: Path, rows: list[MetricsRow], keep: int) -> None:
    """Write `work/checkpoint_<env steps>` in one step, and remove the oldest of those before it.

    Before the first env step, where an algorithm makes offline updates, `_<updates>` is appended.

    Raises:
        ArtifactError: it cannot be written; the ones before it stay.
    """
    env_steps, updates = algo.counts["env_steps"], algo.counts["updates"]
    final = work / (f"{PREFIX}{env_steps:012d}" + ("" if env_steps or not updates else f"_{updates:012d}"))
    with writable(work):
        if not final.exists() or _damage(final):
            draft = work / "draft"
            shutil.rmtree(draft, ignore_errors=True)
            try:
                algo.save_to_path(str(draft.resolve()))
                (draft / ROWS_FILE).write_text(json.dumps(rows))
                hashes = {str(path.relative_to(draft)): file_hash(path) for path in _files(draft)}
                (draft / HASHES_FILE).write_text(json.dumps(hashes))
                shutil.rmtree(final, ignore_errors=True)
                draft.rename(final)
            except OSError:
                shutil.rmtree(draft, ignore_errors=True)  # a full disk should not stay full of it
                raise
        storage.push(final, HASHES_FILE)
        for old in [path for path in _checkpoints(work) if path.name <= final.name][:-keep]:
            storage.remove(old, HASHES_FILE)


def restore_newest(algo: OffPolicy, work: Path, budget: int) -> list[MetricsRow]:
    """Restore the newest undamaged checkpoint within the budget, if there is one; the rows of metrics up to it."""
    for path in reversed(_checkpoints(work)):
        if int(path.name.removeprefix(PREFIX).partition("_")[0]) > budget:
            continue
        storage.fetch(path, HASHES_FILE, lambda folder: _damage(folder) is None)
        if reason := _damage(path):
            logger.warning(f"{path}: damaged checkpoint ({reason}), skipped")
            continue
        algo.restore_from_path(str(path.resolve()))
        rows: list[MetricsRow] = json.loads((path / ROWS_FILE).read_text())
        left = algo.offline_updates_left
        where = f"{algo.counts['updates']} offline updates" if left else f"{algo.counts['env_steps']} env steps"
        logger.info(f"resumed at {where} from {path}")
        return rows
    return []


def _checkpoints(work: Path) -> list[Path]:
    """All there are, also those that are only where the run belongs."""
    stored = (work / name for name in storage.names(work) if name.startswith(PREFIX))
    return sorted({*work.glob(f"{PREFIX}*"), *stored})


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint."""
    try:
        hashes: dict[str, str] = json.loads((path / HASHES_FILE).read_text())
        altered = [name for name, known in hashes.items() if file_hash(path / name) != known]
    except (OSError, ValueError, AttributeError) as error:
        return str(error)
    return f"the hash of {altered[0]} differs" if altered else None
