"""What every section of the settings is made of."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Names = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
Numbers = Annotated[tuple[float, ...], Field(strict=False, min_length=1)]
Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False, min_length=1)]
QuantisationType = Literal["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"]


def setting(description: str, unit: str, **bounds: Any) -> Any:
    """A documented field; `unit` is "–" where there is none."""
    return Field(description=description, json_schema_extra={"unit": unit}, **bounds)


class Section(BaseModel):
    """A section of params.yaml: frozen, strict types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
