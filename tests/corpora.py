"""A corpus folder with the commands beside it, as the stages `commands` and `corpus` make them."""

from pathlib import Path

from tasks.data.commands import make_commands
from tasks.data.corpus import make_corpus
from tasks.settings import Corpus


def make(params: Corpus, *, out_dir: Path, normaliser: str = "ko-1") -> Path:
    """Writes `out_dir` and commands/ beside it; returns `out_dir`."""
    commands = out_dir.parent / "commands"
    make_commands(params, out_dir=commands, normaliser=normaliser)
    make_corpus(params, commands=commands, out_dir=out_dir, normaliser=normaliser)
    return out_dir
