import numpy as np

from skild_ray.evaluation.results import Summary
from skild_ray.evaluation.rollouts import Episode, summarise
from skild_ray.report.curves import (
    MAX_POINTS,
    credit_curves,
    downstream_curves,
    offline_curves,
    read_metrics,
    subtasks_ci95,
)


def test_missing_values_and_files_are_no_errors(tmp_path):
    path = tmp_path / "metrics.csv"
    assert read_metrics(path) == {}
    path.write_text("env_steps,success,q_1\n10,,1.5\n20,0.5,nan\n")
    metrics = read_metrics(path)
    assert list(metrics) == ["env_steps", "success", "q_1"]
    np.testing.assert_array_equal(metrics["success"], [np.nan, 0.5])
    np.testing.assert_array_equal(metrics["q_1"], [1.5, np.nan])


def test_offline_panels_follow_the_columns_of_the_stage():
    steps = np.array([1.0, 2.0])
    losses = {
        f"{kind}_{name}": steps for name in ("total", "reconstruction", "action_mse") for kind in ("train", "val")
    }
    page = offline_curves("skill_prior", {"iteration": steps, "kept": np.array([1.0, 0.0]), **losses})
    assert page.count("<svg") == 2  # the reconstruction is the action error in other units
    assert "Action error of the decoder" in page
    assert "held out" in page
    assert "kept" in page
    del losses["train_action_mse"]  # as of the posterior
    assert offline_curves("skill_prior", {"iteration": steps, **losses}).count("<svg") == 2


def test_downstream_panels_need_values():
    steps = np.arange(3.0)
    nothing = np.full(3, np.nan)
    metrics = {"env_steps": steps, "success": steps / 2, "subtasks_solved": steps / 2, "episode_return": nothing}
    page = downstream_curves("demo_rl", metrics | {"discriminator_loss": np.zeros(3)})
    assert page.count("<svg") == 1
    assert "Success" in page
    # Several sub-tasks are shown besides success, and a discriminator in training with its loss.
    page = downstream_curves("demo_rl", metrics | {"subtasks_solved": steps, "discriminator_loss": steps})
    assert page.count("<svg") == 3


def test_long_runs_stay_small():
    count = 50 * MAX_POINTS
    steps = np.arange(float(count))
    long = downstream_curves("demo_rl", {"env_steps": steps, "q_1": np.sin(steps)})
    short = downstream_curves("demo_rl", {"env_steps": steps[:MAX_POINTS], "q_1": np.sin(steps[:MAX_POINTS])})
    assert len(long) < 2 * len(short)


def test_several_sub_tasks_have_curves_and_a_band():
    steps = np.arange(4.0)
    solved = {"subtasks_solved": 1.5 * np.ones(4), "episodes": 60 * np.ones(4)}
    rates = {"solved_2_top_burner": np.array([np.nan, 0.5, 0.5, 0.5]), "solved_1_kettle": np.array([np.nan, 1, 1, 1])}
    plain = downstream_curves("demo_rl", {"env_steps": steps, **solved})
    page = downstream_curves("demo_rl", {"env_steps": steps, **solved, **rates})
    assert (plain.count("<svg"), page.count("<svg")) == (1, 2)
    assert page.index("kettle") < page.index("top burner"), "in their order"
    assert "fill-opacity" in page
    assert "fill-opacity" not in plain


def test_the_band_of_solved_sub_tasks_has_a_width_within_their_number():
    metrics = {"episodes": np.full(3, 60.0), "solved_1": np.array([0, 1, np.nan]), "solved_2": np.array([0, 1, np.nan])}
    low, high = subtasks_ci95(metrics)
    assert low[0] == 0 < high[0] < low[1] < high[1] == 2
    assert np.isnan(low[2])


def test_more_sub_tasks_than_colours_are_all_drawn():
    rates = {f"solved_{k}": np.ones(3) / k for k in range(1, 10)}
    page = downstream_curves("demo_rl", {"env_steps": np.arange(3.0), **rates})
    assert "sub-task 9" in page


def test_credits_over_the_episode():
    nothing = np.zeros((1, 1), np.float32)

    def summary(*credited_at: tuple[int, ...]) -> Summary:
        played = [Episode(0.0, 900, len(at), False, nothing, 0, nothing, ("kettle", "<b>"), at) for at in credited_at]
        return summarise(played, 0, 0)

    parts = [("trained", summary((3, 900), (5,))), ("initial", summary((), ()))]
    page = credit_curves("demo_rl", parts)
    assert page.count("<svg") == 2
    assert "&lt;b&gt;" in page
    assert credit_curves("demo_rl", parts[1:]).count("<svg") == 1
