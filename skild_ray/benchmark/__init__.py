"""Benchmarks of methods: worlds x methods x seeds, each cell a run, all of them in one file and on one page."""
