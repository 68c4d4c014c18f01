"""The formats of stored data sets, and which of them a data set has."""

import os
import re

from skild_ray.data import d4rl, lerobot, minari_store, ogbench, robomimic, spirl
from skild_ray.data.reader import Reader
from skild_ray.errors import DataError
from skild_ray.plugins import import_by_name

READERS = {
    "minari": minari_store.READER,
    "robomimic": robomimic.READER,
    "d4rl": d4rl.READER,
    "ogbench": ogbench.READER,
    "lerobot": lerobot.READER,
    "spirl": spirl.READER,
}
"""The formats by name, in the order in which they are asked whether a data set is theirs."""

NAMED = re.compile(r"(\w+):(.+)")
"""`format:name`: a data set in this format, whatever it looks like."""

OTHER_READER = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*):(?!//)(.+)")
"""`module:attribute:name`: a data set in the format of another package's Reader."""


def find_reader(name: str) -> tuple[Reader, str]:
    """The reader of a data set, and the data set's name without the reader's.

    Raises:
        ConfigError: the module of another package's reader cannot be imported.
        DataError: there is no such reader, or no reader for such a data set; the message lists the formats.
    """
    other = OTHER_READER.fullmatch(name)
    if other is None:
        named = NAMED.fullmatch(name)
        if named and named[1] in READERS:
            return READERS[named[1]], os.path.expanduser(named[2])
        return _detected(os.path.expanduser(name))
    module, attribute, location = other.groups()
    found = getattr(import_by_name(module, f"data set {name!r}"), attribute, None)
    if not isinstance(found, Reader):
        raise DataError(f"data set {name!r}: module {module!r} has no {Reader.__module__}.Reader {attribute!r}")
    location = os.path.expanduser(location)
    if not found.matches(location):
        raise DataError(f"data set {name!r}: {location!r} is not {found.description}")
    return found, location


def _detected(location: str) -> tuple[Reader, str]:
    for reader in READERS.values():
        if reader.matches(location):
            return reader, location
    problem = "has none of the formats" if os.path.exists(location) else "there is no such file or folder"
    known = ", ".join(reader.description for reader in READERS.values())
    raise DataError(
        f"{location}: {problem}; a data set is {known}, 'format:path' with one of {', '.join(READERS)}, or "
        "'module:attribute:path' with another package's reader"
    )
