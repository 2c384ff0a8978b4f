"""Which utterances the condition `joined` of an evaluation puts together in one recording."""

from collections.abc import Sequence

from tasks.errors import DataError


def joined_groups(speakers: Sequence[str], size: int) -> list[list[int]]:
    """Indices in groups of `size` utterances of one speaker, in their order; what is left over stays out.

    Raises `DataError` when no speaker has enough.
    """
    by_speaker: dict[str, list[int]] = {}
    for index, speaker in enumerate(speakers):
        by_speaker.setdefault(speaker, []).append(index)
    groups = [
        own[start : start + size]
        for own in by_speaker.values()
        for start in range(0, len(own) - size + 1, size)
    ]
    if groups:
        return groups
    # Few utterances of many speakers (a small run): speakers are mixed rather than the condition left out.
    mixed = [list(range(start, start + size)) for start in range(0, len(speakers) - size + 1, size)]
    if not mixed:
        raise DataError(
            f"a test split of {len(speakers)} utterances",
            f"needs at least evaluate_asr.joined = {size} to join",
            "raise corpus.test_utterances or lower evaluate_asr.joined in params.yaml",
        )
    return mixed
