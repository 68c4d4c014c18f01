"""Data sets from Minari's hub."""

import logging
import shutil

import minari

from skild_ray.data.minari_store import dataset_exists, datasets_root, is_minari_id, open_minari
from skild_ray.errors import DataError, one_line


def download(dataset_id: str) -> bool:
    """Download a Minari data set, unless it is here; one that does not arrive whole is removed again.

    MINARI_REMOTE names another hub than Minari's own.

    Returns:
        Whether it was downloaded.

    Raises:
        DataError: if the id is malformed, there is no such data set, the hub cannot be reached, or what is here cannot
            be read.
    """
    if not is_minari_id(dataset_id):  # whose folder, removed below, could be any other
        raise DataError(f"{dataset_id!r} is no Minari id: it must be like 'namespace/name-v0'")
    if dataset_exists(dataset_id):
        open_minari(dataset_id)
        return False
    folder = datasets_root() / dataset_id
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it reports each of its own repeated attempts
    arrived = False
    try:
        minari.download_dataset(dataset_id)
        open_minari(dataset_id)
        arrived = True
    except Exception as error:  # the client of each kind of hub raises its own
        raise DataError(
            f"data set {dataset_id!r} cannot be downloaded ({one_line(error)}): check the id and the connection with "
            f"'minari list remote', or run 'minari download {dataset_id}' on another machine and copy the folder to "
            f"{folder}"
        ) from error
    finally:
        if not arrived:
            shutil.rmtree(folder, ignore_errors=True)
    return True
