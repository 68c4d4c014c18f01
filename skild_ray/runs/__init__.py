"""The folder of a run: artifacts, copies at a URI, what is reused, one process at a time."""
