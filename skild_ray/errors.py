"""Errors meant for people: one line that says what is wrong, where, and what to do about it."""


class SkildError(Exception):
    """Something the user can mend. The command line prints its message as one line and exits with `exit_code`."""

    exit_code = 1


class ConfigError(SkildError):
    """A wrong experiment file or override."""

    exit_code = 2


class DataError(SkildError):
    """A missing, corrupt or mismatched data set."""


class ArtifactError(SkildError):
    """A missing, truncated or mismatched artifact of a stage, or a run directory that cannot be written."""
