"""The report's maps: exploration over training, demonstration support, and whom the policy follows where."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray

from skild_ray.algorithms.earlier_runs import REPLAY_FILE
from skild_ray.algorithms.pretrained import Pretrained, load_discriminator, load_head
from skild_ray.config import Experiment
from skild_ray.errors import ArtifactError, ConfigError
from skild_ray.evaluation.agent import Agent, load_agent
from skild_ray.models.discriminator import Discriminator
from skild_ray.report.maze_map import BINS_PER_CELL, RAMP, SMALL, MazeMap, Points
from skild_ray.report.page import Markup, caption, element, figure, note, panels, ramp
from skild_ray.runs.artifacts import Artifact
from skild_ray.stages import DEMO_DISCRIMINATOR, DEMONSTRATIONS_FILE, in_words

QUARTERS = ("First quarter", "Second quarter", "Third quarter", "Last quarter")
MAX_STATES = 20_000
MAX_PATHS = 30
MAX_TRAJECTORIES = 8  # of a quarter, in a small map
PATH_STRIDE = 8

States = NDArray[np.float32]


def maze_section(run_dir: Path, stages: Sequence[Artifact], experiment: Experiment) -> list[Markup]:
    """Maps of everything there is to map; none where the environment has no walls."""
    found = {artifact.stage: artifact for artifact in stages}
    if DEMO_DISCRIMINATOR.name not in found:
        return []
    try:
        plan = MazeMap.of(experiment.environment)
    except ConfigError as error:
        return [note(f"No maps: {error}.")]
    if plan is None:
        return []
    demonstrations = _demonstrations(found[DEMO_DISCRIMINATOR.name])
    content: list[Markup] = []
    agents = [artifact for artifact in stages if DEMO_DISCRIMINATOR.name in artifact.record["inputs"]]
    for artifact in agents:
        if len(agents) > 1:
            content.append(element("h3", in_words(artifact.stage)))
        content += _agent_maps(run_dir, artifact, plan, demonstrations)
    if not content:
        discriminator = load_discriminator(found[DEMO_DISCRIMINATOR.name])
        map_of_support = _support_everywhere("offline", plan, discriminator, demonstrations)
        content = [*_support_heading(), panels([map_of_support], wide=True)]
    return content


def _agent_maps(run_dir: Path, artifact: Artifact, plan: MazeMap, demonstrations: Sequence[States]) -> list[Markup]:
    paths = _drawn(demonstrations)
    replay_file = artifact.path / REPLAY_FILE
    if not replay_file.exists():
        return [note(f"No maps of the agent: {replay_file} is missing.")]
    try:
        agent, pretrained = load_agent(artifact.path), Pretrained.open(run_dir)
    except ArtifactError as error:
        return [note(f"No maps of the agent: {error}.")]
    with np.load(replay_file) as replay:
        states, terminated, following = replay["obs"], replay["terminated"], replay["following"]
    some = states[np.linspace(0, len(states) - 1, min(len(states), MAX_STATES)).astype(int)]
    name, discriminator = artifact.stage, agent.module.discriminator
    return [
        element("h3", "Where the agent was"),
        note(
            f"States in which skills began, counted in squares of {1 / BINS_PER_CELL:g} m, over the part of training "
            "that the replay holds; lines are whole episodes of each quarter, drawn from skill to skill."
        ),
        *_visits(name, plan, states, terminated, following),
        *_support_heading(),
        panels(
            [
                _support_at_visited(name, plan, discriminator, some, paths),
                _support_everywhere(name, plan, discriminator, demonstrations),
            ],
            wide=True,
        ),
        element("h3", "Whom the policy follows"),
        note(
            "Divergence of the trained policy from its two references; blue is close. Within the demonstrations' "
            "support it is pulled to the posterior, elsewhere to the prior."
        ),
        *_divergences(name, plan, agent, pretrained, some, paths),
    ]


def _visits(
    name: str, plan: MazeMap, states: States, terminated: NDArray[np.float32], following: NDArray[np.int64]
) -> list[Markup]:
    """Visits in each quarter of the replay, which is in the order of time, on one logarithmic scale."""
    parts = np.array_split(np.arange(len(states)), len(QUARTERS))
    counts = [plan.counts(states[part, :2]) for part in parts]
    most = max(2.0, *(float(count.max()) for count in counts))
    figures = []
    for index, (quarter, part, count) in enumerate(zip(QUARTERS, parts, counts, strict=True)):
        visited = np.where(count > 0, np.log(np.maximum(count, 1)), np.nan)
        svg = plan.draw(
            f"{name}-visits-{index}",
            f"Visited squares and paths, {quarter.lower()}",
            visited,
            0,
            np.log(most),
            paths=_trajectories(states, following, part),
            width=SMALL,
        )
        said = f"{len(part):,} decisions, {int(terminated[part].sum()):,} at the target"
        figures.append(figure(quarter, svg, caption(said)))
    return [ramp("1", f"{most:.0f} visits, logarithmic", RAMP), panels(figures)]


def _trajectories(states: States, following: NDArray[np.int64], part: NDArray[np.int64]) -> list[Points]:
    """Positions along a few of the episodes that begin in a part of the replay."""
    first = np.setdiff1d(part, following)
    paths = []
    for row in first[np.linspace(0, len(first) - 1, min(len(first), MAX_TRAJECTORIES)).astype(int)]:
        rows = [row]
        while following[rows[-1]] >= 0:
            rows.append(following[rows[-1]])
        paths.append(states[rows, :2])
    return paths


def _divergences(
    name: str, plan: MazeMap, agent: Agent, pretrained: Pretrained, states: States, paths: Sequence[Points]
) -> list[Markup]:
    """KL(pi || posterior) and KL(pi || prior) on one logarithmic scale."""
    policy = agent.module.policy
    references = {"posterior": load_head(pretrained.skill_posterior), "prior": load_head(pretrained.skill_prior)}
    floor = agent.module.settings.sigma_floor
    with torch.inference_mode():
        inputs = torch.from_numpy(states)
        skills = policy(inputs)
        values = {key: skills.kl(head(inputs).floored(floor)).sum(-1).numpy() for key, head in references.items()}
    low, high = np.quantile(np.concatenate(list(values.values())), (0.02, 0.98)).clip(1e-3)
    figures = []
    for reference, divergence in values.items():
        field = np.log(plan.means(states[:, :2], divergence).clip(1e-3))
        title = f"KL(π ‖ {reference}) at visited states"
        svg = plan.draw(f"{name}-kl-{reference}", title, field, np.log(low), np.log(high), paths=paths)
        figures.append(figure(title, svg))
    return [ramp(f"{low:.3g}", f"{high:.3g} nats, logarithmic", RAMP), panels(figures, wide=True)]


def _support_at_visited(
    name: str, plan: MazeMap, discriminator: Discriminator, states: States, paths: Sequence[Points]
) -> Markup:
    field = plan.means(states[:, :2], _support(discriminator, states))
    return _support_figure(f"{name}-visited", "D(s) at visited states", plan, field, paths)


def _support_everywhere(
    name: str, plan: MazeMap, discriminator: Discriminator, demonstrations: Sequence[States]
) -> Markup:
    """The largest D(s) over eight directions of motion at the demonstrations' median speed, all over the map."""
    squares = plan.squares()
    speed = np.median(np.linalg.norm(np.concatenate(demonstrations)[:, 2:], axis=1))
    angles = np.arange(8) * np.pi / 4
    velocities = speed * np.stack((np.cos(angles), np.sin(angles)), axis=1)
    states = np.concatenate(
        (np.repeat(squares, len(angles), axis=0), np.tile(velocities, (len(squares), 1))), axis=1, dtype=np.float32
    )
    field = plan.means(squares, _support(discriminator, states).reshape(len(squares), -1).max(1))
    title = "D(s) all over the map, in the best direction"
    return _support_figure(f"{name}-everywhere", title, plan, field, _drawn(demonstrations))


def _support_figure(
    name: str, title: str, plan: MazeMap, field: NDArray[np.float64], paths: Sequence[Points]
) -> Markup:
    return figure(title, plan.draw(f"{name}-support", title, field, 0, 1, paths=paths))


def _support_heading() -> list[Markup]:
    return [
        element("h3", "Demonstration support"),
        note("Where the discriminator takes a state for one of the demonstrations, which are drawn as lines."),
        ramp("D(s) = 0", "1", RAMP),
    ]


@torch.inference_mode()
def _support(discriminator: Discriminator, states: States) -> NDArray[np.float32]:
    return discriminator(torch.from_numpy(states)).sigmoid().numpy()


def _demonstrations(artifact: Artifact) -> list[States]:
    """States of each demonstration."""
    stored = safetensors.numpy.load_file(artifact.path / DEMONSTRATIONS_FILE)
    return np.split(stored["observations"], stored["ends"][:-1])


def _drawn(episodes: Sequence[States]) -> list[Points]:
    """Positions along episodes, a few of them and every few steps: they are drawn, not counted."""
    return [episode[::PATH_STRIDE, :2] for episode in episodes[:MAX_PATHS]]
