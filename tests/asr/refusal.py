"""What every process of a launch refuses to do: in a module of its own, for each of them imports it."""

from tasks.errors import SettingsError


def refuse(key: str) -> None:
    """Raises as a training does whose settings do not fit."""
    raise SettingsError("params.yaml", [f"{key} = 9: too many"], "lower it")
