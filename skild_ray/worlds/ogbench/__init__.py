"""OGBench's manipulation and mazes. The package itself is an extra, and imported by the modules in here only."""
