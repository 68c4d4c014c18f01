import json
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from skild_ray.algorithms.train import algorithm_config
from skild_ray.config import Experiment, with_values
from skild_ray.errors import ArtifactError
from skild_ray.evaluation.results import Evaluation, PolicySummary, Summary, Video
from skild_ray.evaluation.rollouts import Episode, summarise
from skild_ray.models.discriminator import Discriminator
from skild_ray.models.skill_model import SkillHead, SkillModel
from skild_ray.offline.demo_discriminator import DEMONSTRATIONS_FILE
from skild_ray.report.run_page import write_report
from skild_ray.report.video_section import INLINE_BYTES
from skild_ray.runs.artifacts import Artifact, open_artifact, publish
from skild_ray.runs.folder import run_folder

VOID = {"meta", "br", "hr", "img", "input", "link"}
NO_MAZE = "MountainCarContinuous-v0"
EVIL = "<script>alert('data')</script>"


class Page(HTMLParser):
    """A parsed report: what it says, what it is made of, and whether every element is closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif name in ("href", "src", "xlink:href"):
                self.references.append(value)
            elif value and "url(" in value:
                self.references.append(value.split("url(")[1].split(")")[0])

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data


def experiment_in(runs: Path, environment: str = "skild_ray/Maze-v0", **kwargs: object) -> Experiment:
    source = {"dataset": EVIL}
    return Experiment.model_validate(
        {
            "name": "tiny",
            "runs": str(runs),
            "environment": {"id": environment, "kwargs": kwargs},
            "data": {"task_agnostic": {"play": source}, "demonstrations": {"scripted": source}},
            "skill": {"hidden": 8, "decoder_layers": 1, "head_layers": 1, "latent_dim": 3},
            "algorithm": {"critic_hidden": 8, "critic_layers": 0},
        }
    )


def publish_offline(experiment: Experiment, count: int = 3) -> list[Artifact]:
    """The first `count` offline stages with untrained weights."""
    skill_model, head = SkillModel(4, 2, experiment.skill), SkillHead(4, experiment.skill)
    discriminator = Discriminator(4, experiment.demo_discriminator.hidden, experiment.demo_discriminator.layers)
    rows = [
        {"iteration": step, "seconds": step / 10, "train_total": 2 / step, "val_total": 3 / step, "kept": 1.0}
        for step in (1, 2, 3)
    ]
    demonstrations = run_folder(experiment) / DEMONSTRATIONS_FILE
    demonstrations.parent.mkdir(parents=True, exist_ok=True)
    states = np.linspace((10, 24, 0, 0), (18, 8, 0, 0), 50, dtype=np.float32)
    safetensors.numpy.save_file({"observations": states, "actions": states, "ends": np.array([20, 50])}, demonstrations)
    artifacts: list[Artifact] = []
    for stage, module in (
        ("skill_prior", skill_model),
        ("skill_posterior", head),
        ("demo_discriminator", discriminator),
    ):
        artifacts.append(
            publish(
                experiment,
                stage,
                module.state_dict(),
                rows,
                fingerprint=f"print-{stage}",
                data={"task_agnostic": "aaaa,bbbb", "demonstrations": "cccc"},
                inputs=artifacts[:1] if stage == "skill_posterior" else [],
                facts={"observation_dim": 4, "action_dim": 2, "iterations": 3, "seconds": 12.0},
                extra=[demonstrations] if stage == "demo_discriminator" else [],
            )
        )
    for artifact in artifacts[count:]:
        shutil.rmtree(artifact.path)
    return artifacts[:count]


def publish_downstream(experiment: Experiment, inputs: list[Artifact], stage: str = "demo_rl") -> Artifact:
    """Stage 4 with untrained weights, made-up metrics and a replay of random states."""
    rng = np.random.default_rng(0)
    replay = run_folder(experiment) / "replay.npz"
    following = np.where(np.arange(400) % 50 < 49, np.arange(400) + 1, -1)  # eight episodes of 50 skills
    states = rng.uniform((5, 5, -1, -1), (35, 35, 1, 1), (400, 4)).astype(np.float32)
    np.savez(replay, obs=states, terminated=np.eye(1, 400, 399, dtype=np.float32)[0], following=following)
    learner = ("policy_loss", "critic_loss", "q_1", "prior_divergence", "posterior_divergence", "alpha", "p_demo")
    rows: list[dict[str, float]] = [{"env_steps": 100, "seconds": 1.0}]
    rows += [
        {"env_steps": steps, "seconds": steps / 100, "success": 0.5, "episode_return": 50.0, "env_reward": 1.0}
        | {name: float(rng.random()) for name in learner}
        for steps in (200, 300, 400)
    ]
    return publish(
        experiment,
        stage,
        algorithm_config(experiment).build_module().state_dict(),
        rows,
        fingerprint="print-downstream",
        data={},
        inputs=inputs,
        facts={"env_steps": 4321, "decisions": 432, "updates": 21, "episodes": 7, "seconds": 7500.0},
        extra=[replay],
    )


def summary(successes: int, episodes: int = 20, subtasks: tuple[str, ...] = ("goal",)) -> Summary:
    nowhere = np.zeros((1, 4), np.float32)
    played = [
        Episode(
            100.0 * (i < successes),
            500,
            solved := len(subtasks) * (i < successes),
            i < successes,
            nowhere,
            i,
            nowhere,
            subtasks,
            tuple(range(7, 7 + solved)),
        )
        for i in range(episodes)
    ]
    return summarise(played, 4321, 7)


def keep(evaluation: Evaluation, artifact: Artifact) -> None:
    (artifact.path / "evaluation.json").write_text(json.dumps(evaluation.to_json()))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with all four stages and an evaluation."""
    experiment = experiment_in(tmp_path_factory.mktemp("runs"))
    artifact = publish_downstream(experiment, publish_offline(experiment))
    trained, initial = PolicySummary(summary(18), summary(15)), PolicySummary(summary(2), summary(1))
    keep(Evaluation({"trained": trained, "initial": initial}), artifact)
    return run_folder(experiment)


@pytest.fixture(scope="module")
def page(run) -> Page:
    path = write_report(run)
    assert path == run / "report.html"
    return Page(path)


def test_page_stands_alone(page):
    assert page.references
    assert all(reference.startswith(("#", "data:image/png;base64,")) for reference in page.references)
    assert page.tags.keys().isdisjoint({"script", "link", "iframe", "img"})
    assert "@import" not in page.source
    assert "http" not in page.source
    assert "prefers-color-scheme: dark" in page.source


def test_references_inside_the_page_have_exactly_one_target(page):
    assert set(Counter(page.ids).values()) == {1}
    assert {reference[1:] for reference in page.references if reference[0] == "#"} <= set(page.ids)


def test_headline_numbers(page):
    # Wilson's interval of 18 out of 20: 0.699 to 0.972.
    for expected in (
        "tiny",
        "Demonstration-guided reinforcement learning",
        "90 %",
        "70 to 97 %",
        "75 %",
        "4,321",
        "7 episodes",
    ):
        assert expected in page.text
    assert "Wall time 2 h 06 min" in page.text
    assert "Demonstration-guided RL 2 h 05 min" in page.text


def test_provenance_of_every_stage(run, page):
    for stage in ("skill_prior", "skill_posterior", "demo_discriminator", "demo_rl"):
        record = open_artifact(run, stage).record
        assert record["fingerprint"] in page.text
        assert all(version in page.text for version in record["versions"].values())
        assert all(sha256[:12] in page.text for sha256 in record["inputs"].values())
    assert "aaaa bbbb" in page.text
    assert "3 iterations" in page.text
    assert "21 updates" in page.text
    assert "Out of date" not in page.text


def test_resolved_configuration_is_shown_once_and_escaped(page):
    assert EVIL in page.text
    assert page.tags["details"] == 1


def test_every_figure_is_there(page):
    offline, downstream, visits, support, divergences = 3, 9, 4, 2, 2
    assert page.tags["figure"] == page.tags["svg"] == offline + downstream + visits + support + divergences
    for title in ("Success", "Q values", "Divergences", "Last quarter", "D(s) at visited states", "KL(π ‖ prior)"):
        assert title in page.text
    assert "100 decisions, 1 at the target" in page.text


def test_evaluation_table_has_all_policies(page):
    for label in ("trained, deterministic", "trained, sampled", "initial, deterministic", "initial, sampled"):
        assert label in page.text
    assert "20 complete episodes each, seed 7" in page.text


def test_one_sub_task_is_not_broken_down(page):
    for title in ("Sub-tasks completed", "When they are credited", "Completed in order", "Videos"):
        assert title not in page.text


def test_several_sub_tasks_videos_and_key_frames(tmp_path):
    experiment = experiment_in(tmp_path, NO_MAZE)
    artifact = publish_downstream(experiment, publish_offline(experiment))
    subtasks = ("kettle", EVIL)
    trained = PolicySummary(summary(18, subtasks=subtasks), summary(15, subtasks=subtasks))
    filmed = tuple(
        Video(
            name=f"episode_{index:03d}",
            episode=index,
            seed=index,
            success=True,
            env_steps=9,
            subtasks=subtasks,
            credited_at=(3, 9),
        )
        for index in range(3)
    )
    keep(Evaluation({"trained": trained}, 3, filmed), artifact)
    videos = artifact.path / "videos"
    videos.mkdir()
    for index, size in enumerate((1_000, INLINE_BYTES)):  # the third could not be rendered
        (videos / f"episode_{index:03d}.mp4").write_bytes(bytes(size))
        for step in (0, 3, 9):
            (videos / f"episode_{index:03d}_{step:04d}.jpg").write_bytes(b"picture")
    page = Page(write_report(run_folder(experiment)))
    assert "90 % [70 to 97 %]" in page.text
    assert EVIL in page.text
    assert "script" not in page.tags
    assert (page.tags["video"], page.tags["img"]) == (1, 6)
    assert "demo_rl/videos/episode_001.mp4" in page.references, "too large for the page"
    assert page.text.count("2 of 2 sub-tasks, 9 env steps, success") == 3
    assert page.text.count("kettle · 3") == 2
    assert page.text.count("Not filmed") == 1


def test_the_same_run_gives_the_same_page(run, page):
    assert write_report(run).read_text(encoding="utf-8") == page.source


def test_offline_stages_alone(tmp_path):
    experiment = experiment_in(tmp_path)
    publish_offline(experiment)
    page = Page(write_report(run_folder(experiment)))
    assert "Stage 4 is not finished" in page.text
    assert "D(s) all over the map, in the best direction" in page.text
    assert page.tags["figure"] == 4


def test_first_stage_alone(tmp_path):
    experiment = experiment_in(tmp_path)
    publish_offline(experiment, 1)
    page = Page(write_report(run_folder(experiment)))
    assert "Not finished, and left out: Skill posterior, Demo discriminator." in page.text
    assert page.tags["figure"] == 1


def test_imitation_that_is_not_evaluated(tmp_path):
    experiment = with_values(experiment_in(tmp_path, NO_MAZE), {"algorithm.env_reward_weight": 0.0})
    publish_downstream(experiment, publish_offline(experiment), "imitation")
    page = Page(write_report(run_folder(experiment)))
    assert "Imitation: the demonstrations are the only reward" in page.text
    assert "Success in training" in page.text
    assert "Not evaluated yet" in page.text


def test_environment_that_cannot_be_made_costs_the_maps_only(tmp_path):
    experiment = experiment_in(tmp_path, task=EVIL)
    publish_offline(experiment)
    page = Page(write_report(run_folder(experiment)))
    assert f"No maps: environment 'skild_ray/Maze-v0': unknown maze task {EVIL!r}" in page.text
    assert page.tags["figure"] == 3


def test_environment_without_walls_has_no_maps(tmp_path):
    experiment = experiment_in(tmp_path, NO_MAZE)
    publish_offline(experiment)
    page = Page(write_report(run_folder(experiment)))
    assert "Maps" not in page.text


def test_stages_that_do_not_belong_together_are_pointed_out(tmp_path):
    experiment = experiment_in(tmp_path, NO_MAZE)
    publish_downstream(experiment, publish_offline(experiment))
    publish_offline(experiment)
    page = Page(write_report(run_folder(experiment)))
    assert page.text.count("Out of date") == 3


def test_single_episode_has_no_interval_of_the_return(tmp_path):
    experiment = experiment_in(tmp_path, NO_MAZE)
    artifact = publish_downstream(experiment, publish_offline(experiment))
    single = summary(1, episodes=1)
    keep(Evaluation({"trained": PolicySummary(single, single)}), artifact)
    assert "[unknown]" in Page(write_report(run_folder(experiment))).text


def test_damaged_evaluation_names_the_remedy(tmp_path):
    experiment = experiment_in(tmp_path, NO_MAZE)
    artifact = publish_downstream(experiment, publish_offline(experiment))
    (artifact.path / "evaluation.json").write_text('{"episodes": 1')
    with pytest.raises(ArtifactError, match=r"evaluation\.json: damaged; delete it"):
        write_report(run_folder(experiment))


@pytest.mark.parametrize("exists", [True, False])
def test_nothing_to_report_on_is_one_line_with_a_remedy(tmp_path, exists):
    folder = tmp_path / "empty"
    if exists:
        folder.mkdir()
    with pytest.raises(ArtifactError, match=r"no finished stage .*skild-ray pipeline EXPERIMENT") as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)
