"""Where metrics go while a stage runs: files in its work folder, and runs at Weights & Biases and MLflow."""

from skild_ray.tracking.files import MetricsRow
from skild_ray.tracking.tracking import Series, Tracking

__all__ = ["MetricsRow", "Series", "Tracking"]
