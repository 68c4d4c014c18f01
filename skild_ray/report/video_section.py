"""The report's videos: the filmed episodes of the evaluation, each with a strip of its key frames."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skild_ray.evaluation.results import Results, recordings
from skild_ray.report.page import Markup, element, image, note, video
from skild_ray.runs.artifacts import Artifact
from skild_ray.video.film import key_frame
from skild_ray.video.recording import key_steps

INLINE_BYTES = 2_000_000
"""Of all videos together that are put into the page; those beyond are linked."""


def video_section(run_dir: Path, stages: Sequence[Artifact], results: Mapping[str, Results]) -> list[Markup]:
    """Films and strips of whatever stage was filmed; empty where none was wanted or can be."""
    content: list[Markup] = []
    left = INLINE_BYTES
    for artifact in stages:
        result = results.get(artifact.stage, {})
        if not result.get("videos"):
            continue
        if not content:
            content.append(
                note(
                    "Episodes of the trained, deterministic policy that count in the evaluation above: a typical one, "
                    "the worst, the best. Pictures are of the start, of every sub-task's credit and of the end."
                )
            )
        for entry, recording in zip(result["videos"], recordings(result, artifact.path), strict=True):
            content.append(element("h4", _title(entry)))
            film = recording.with_suffix(".mp4")
            if not film.exists():
                content.append(note("Not filmed, as nothing could render; skild-ray pipeline EXPERIMENT tries again."))
                continue
            size = film.stat().st_size
            if size <= left:
                left -= size
                shown = video(_uri(film, "video/mp4"), _title(entry))
            else:
                link = film.relative_to(run_dir).as_posix()
                shown = element("p", element("a", f"{film.name} ({size / 1e6:.1f} MB)", href=link))
            content.append(element("div", shown, _strip(entry, recording), class_="film"))
    return content


def _title(entry: Mapping[str, Any]) -> str:
    facts = [f"{entry['env_steps']} env steps", "success" if entry["success"] else "no success"]
    if len(entry["subtasks"]) > 1:
        facts.insert(0, f"{len(entry['credited_at'])} of {len(entry['subtasks'])} sub-tasks")
    return f"Episode {entry['episode']}: {', '.join(facts)}"


def _strip(entry: Mapping[str, Any], recording: Path) -> Markup:
    pictures = []
    for step, caption in sorted(key_steps(entry["subtasks"], entry["credited_at"], entry["env_steps"]).items()):
        path = key_frame(recording, step)
        if path.exists():
            picture = image(_uri(path, "image/jpeg"), f"{caption}, env step {step}")
            pictures.append(element("figure", picture, element("figcaption", f"{caption} · {step}")))
    return element("div", *pictures, class_="strip")


def _uri(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
