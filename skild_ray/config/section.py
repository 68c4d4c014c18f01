"""What every section of the experiment has in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the experiment. Unknown keys are errors, values are checked and never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
