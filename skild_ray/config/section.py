"""What every section of the experiment has in common."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the experiment. Unknown keys are errors, values are checked and never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def for_content(cls, content: Any) -> "SectionClass":
        """The class that describes this content: this one, unless the content itself names another."""
        return cls


SectionClass = type[Section]
