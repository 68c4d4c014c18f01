"""`python -m benchmarks.offline` on the smallest task; one Ray Train job stands for the three."""

from pathlib import Path

from pretrained import tiny_experiment

from benchmarks.offline import UNITS, OfflineBenchmark, time_to


def test_rates_bare_and_as_a_job(tmp_path: Path, ray_session: None, minari_root: Path) -> None:
    brief = {"iterations": 9, "batch_size": 16}
    experiment = tiny_experiment(tmp_path, skill_prior=brief, skill_posterior=brief)
    benchmark = OfflineBenchmark(experiment, seconds=0.01, iterations=12)
    rows = benchmark.job("skill_prior")
    assert rows[-1]["iteration"] == 12
    assert benchmark.job_rate(rows) > 0
    for stage in UNITS:
        assert benchmark.bare_rate(stage) > 0


def test_time_to_an_error_is_that_of_the_first_row_below_it() -> None:
    rows = [{"iteration": 10.0 * i, "seconds": float(i), "val_action_mse": 1.0 / i} for i in (1, 2, 3, 4)]
    assert time_to(rows, 0.4) == {"target_mse": 0.4, "seconds_to_target": 3.0, "lowest_mse": 0.25, "seconds": 4.0}
    assert time_to(rows, 0.1)["seconds_to_target"] is None
