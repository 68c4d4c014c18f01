"""Plain SAC over the environment's own actions, with demonstrations in its replay."""
