"""Disk and memory before a run: what it will write and hold, estimated from its sources and its models.

The estimates are of the order of magnitude: they are made to find the run that cannot end well, not to book
space. What an earlier run has left in build/ is taken for what the next one writes anew.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import CapacityError, MalgilError, explain_os_error
from tasks.named_files import files_named_by
from tasks.preflight.finding import Check, Finding, Subject, fault, ok, warning

UTTERANCE_S, BYTES_PER_S = 2.5, 32_000  # of the built-in corpus; 16-bit samples at 16 kHz
# Bytes per parameter. Recogniser: two resumable states (weights and Adam's two, 12 each), the best, the last
# and the exported checkpoint, ONNX, int8. Language model: base, merged and GGUF in 16 bits.
ASR_BYTES, LLM_BYTES = 24 + 12 + 4 + 1, 2 + 2 + 2
QUANTISED = {"Q8_0": 1.06, "Q6_K": 0.82, "Q5_K_M": 0.71, "Q4_K_M": 0.61, "Q4_0": 0.56}
# Bytes per parameter in memory at once: fp32 weights, gradients and Adam; fp32 and 16-bit copies of the base.
ASR_HELD, LLM_HELD = 16, 6
PROCESS_BYTES = 0.6e9  # of a stage, before it holds a model
LEAST_FREE = 50e6
DISK, MEMORY, FOLDERS = "disk", "memory", "folders"


def look_at_folders(subject: Subject) -> Iterator[Finding]:
    """Every folder that a run writes to can be written to; nothing is left there."""
    for name in ("build", "store", ".dvc", tempfile.gettempdir()):
        try:
            require_writable(Path(name))
        except MalgilError as error:
            yield fault(FOLDERS, error)
    yield ok(FOLDERS, "build/, store/ and .dvc/ can be written")


def require_writable(folder: Path) -> None:
    """Raises CapacityError or ArtifactError if `folder`, or the first of its parents that is there, cannot be
    written.
    """
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            return
    except OSError as error:
        raise explain_os_error(error, folder if place == folder.absolute() else place) from error


def look_at_disk(subject: Subject) -> Iterator[Finding]:
    """Free space where build/ and store/ lie against what the run writes."""
    needs: dict[int, tuple[float, Path]] = {}
    for folder, size in writes(subject).items():
        place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        device = place.stat().st_dev
        needs[device] = (needs.get(device, (0.0, place))[0] + size, place)
    for needed, place in needs.values():
        free = shutil.disk_usage(place).free
        said = f"about {needed / 1e9:.1f} GB to be written, {free / 1e9:.1f} GB free on the disk of {place}"
        if free < max(needed, LEAST_FREE):
            raise CapacityError(
                f"no space left for this run on the disk of {place}: {said}",
                "corpus, checkpoints and models of a run must fit",
                "free some space (`dvc gc -w` drops old artifacts) and start the same command again",
            )
        yield ok(DISK, said)


def writes(subject: Subject) -> dict[Path, float]:
    """Bytes that a run writes below each folder, less what an earlier one has left in build/."""
    speech = corpus_bytes(subject)
    written = 2.2 * speech  # the corpus, and prepared/asr beside it
    published = 0.0
    if "asr" in subject.lines:
        weights = asr_parameters(subject)
        written, published = written + ASR_BYTES * weights, published + weights
    if "llm" in subject.lines:
        weights = llm_parameters(subject)
        quantised = sum(QUANTISED[kind] for kind in subject.params.quantise_llm.types) * weights
        written, published = written + LLM_BYTES * weights + quantised, published + quantised
    there = sum(
        path.stat().st_size
        for folder in ("corpus", "prepared", "asr", "llm")
        for path in Path("build", folder).rglob("*")
        if path.is_file()
    )
    store = 0.0 if Path("store/published").is_dir() and there else published
    return {Path("build"): max(0.0, written - there), Path("store"): store}


def corpus_bytes(subject: Subject) -> float:
    """Bytes of the recordings as 16 kHz samples, about."""
    corpus = subject.params.corpus
    if corpus.source == "builtin":
        utterances = corpus.train_utterances + 2 * corpus.test_utterances + corpus.ood_utterances
        return utterances * UTTERANCE_S * BYTES_PER_S
    if corpus.source == "manifest":  # what it names: beside it may lie anything
        return sum(map(_as_samples, files_named_by(Path(corpus.manifest))))
    folder = Path(corpus.folder if corpus.source == "folder" else corpus.hub)
    if not folder.is_dir():
        return 0.0  # a Hub id: its size is not known here
    return sum(_as_samples(str(path)) for path in folder.rglob("*") if path.is_file())


def _as_samples(path: str) -> float:
    packed = path.lower().endswith((".mp3", ".ogg", ".opus"))
    return Path(path).stat().st_size * (5.0 if packed else 1.0)


def asr_parameters(subject: Subject) -> float:
    """Weights of the encoder, by the headers of a folder; 317 M of a Hub id."""
    from tasks.preflight.weights import whole_headers

    folder = Path(subject.params.train_asr.encoder)
    try:
        return (
            float(sum(_product(shape) for _, shape in whole_headers(folder).values()))
            if folder.is_dir()
            else 317e6
        )
    except MalgilError:
        return 0.0  # the check of the encoder says what is wrong with it


def llm_parameters(subject: Subject) -> float:
    """Weights of the base model, by its config; 0 where that cannot be read."""
    from tasks.preflight.language_model import parameters, shape_of

    config = shape_of(subject.params.base_llm.model)
    return float(parameters(config)) if config else 0.0


def look_at_memory(subject: Subject) -> Iterator[Finding]:
    """The memory of the machine (or of its control group) against what the stages at work hold."""
    import psutil

    needed = 0.0
    if "asr" in subject.lines:
        frames = subject.params.train_asr.batch_seconds * 50
        needed += (
            PROCESS_BYTES + ASR_HELD * asr_parameters(subject) + frames * 1024 * 24 * 34 * 4 * _size(subject)
        )
    if "llm" in subject.lines:
        needed += PROCESS_BYTES + LLM_HELD * llm_parameters(subject)
    machine = psutil.virtual_memory()
    total = min(machine.total + psutil.swap_memory().total, _group_limit())
    free = machine.available
    said = f"about {needed / 1e9:.1f} GB needed, {total / 1e9:.1f} GB here, {free / 1e9:.1f} GB free"
    if needed > total:
        raise CapacityError(
            f"memory does not suffice for this run: {said}",
            "training holds weights, gradients and the optimizer's state",
            "take smaller models (train_asr.encoder, base_llm.model), one --line, or more memory",
        )
    if needed > free:
        yield warning(MEMORY, said, "the run may be slow, or be ended by the system", "close other programs")
    else:
        yield ok(MEMORY, said)


def _size(subject: Subject) -> float:
    """Activations grow with the model: as a share of those of a model of 317 M parameters."""
    return min(1.0, asr_parameters(subject) / 317e6)


def _group_limit() -> float:
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return float(Path(name).read_text())
        except (OSError, ValueError):  # no control group, or "max"
            continue
    return float(os.sysconf("SC_PAGE_SIZE")) * float(1 << 52)


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size


WRITABLE = Check(FOLDERS, (), look_at_folders)
SPACE = Check(DISK, ("corpus", "train_asr", "base_llm", "quantise_llm"), look_at_disk)
ROOM = Check(MEMORY, ("train_asr", "base_llm"), look_at_memory)
