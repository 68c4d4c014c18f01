"""The report's videos: the filmed episodes of the evaluation, each with a strip of its key frames."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from skild_ray.evaluation.results import Evaluation, Video
from skild_ray.report.page import Markup, element, image, note, video
from skild_ray.runs.artifacts import Artifact
from skild_ray.video.film import key_frame
from skild_ray.video.recording import key_steps

INLINE_BYTES = 2_000_000
"""Of all videos together that are put into the page; those beyond are linked."""


def video_section(
    run_dir: Path, stages: Sequence[Artifact], evaluations: Mapping[str, Evaluation | None]
) -> list[Markup]:
    """Films and strips of whatever stage was filmed; empty where none was wanted or can be."""
    content: list[Markup] = []
    left = INLINE_BYTES
    for artifact in stages:
        evaluation = evaluations.get(artifact.stage)
        if not evaluation or not evaluation.videos:
            continue
        if not content:
            content.append(
                note(
                    "Episodes of the trained, deterministic policy that count in the evaluation above: a typical one, "
                    "the worst, the best. Pictures are of the start, of every sub-task's credit and of the end."
                )
            )
        for filmed in evaluation.videos:
            content.append(element("h4", _title(filmed)))
            recording = filmed.recording(artifact.path)
            film = recording.with_suffix(".mp4")
            if not film.exists():
                content.append(note("Not filmed, as nothing could render; skild-ray pipeline EXPERIMENT tries again."))
                continue
            size = film.stat().st_size
            if size <= left:
                left -= size
                shown = video(_uri(film, "video/mp4"), _title(filmed))
            else:
                link = film.relative_to(run_dir).as_posix()
                shown = element("p", element("a", f"{film.name} ({size / 1e6:.1f} MB)", href=link))
            content.append(element("div", shown, _strip(filmed, recording), class_="film"))
    return content


def _title(filmed: Video) -> str:
    facts = [f"{filmed.env_steps} env steps", "success" if filmed.success else "no success"]
    if len(filmed.subtasks) > 1:
        facts.insert(0, f"{len(filmed.credited_at)} of {len(filmed.subtasks)} sub-tasks")
    return f"Episode {filmed.episode}: {', '.join(facts)}"


def _strip(filmed: Video, recording: Path) -> Markup:
    pictures = []
    for step, caption in sorted(key_steps(filmed.subtasks, filmed.credited_at, filmed.env_steps).items()):
        path = key_frame(recording, step)
        if path.exists():
            picture = image(_uri(path, "image/jpeg"), f"{caption}, env step {step}")
            pictures.append(element("figure", picture, element("figcaption", f"{caption} · {step}")))
    return element("div", *pictures, class_="strip")


def _uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
