"""Results in the order of the recordings, though their windows are computed together. No command."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol, TypeVar

from tasks.asr.recordings.sources import Failure

Result = TypeVar("Result", covariant=True)


class Job(Protocol[Result]):
    """A recording on its way."""

    @property
    def complete(self) -> bool:
        """Nothing more will be computed for it."""

    def result(self) -> Result | Failure:
        """What came of it; asked for once, when it is complete."""


def finished(jobs: deque[Job[Result] | Failure]) -> Iterator[Result | Failure]:
    """Takes from the head of the line what is complete, up to the first that is not."""
    while jobs:
        job = jobs[0]
        if not isinstance(job, Failure) and not job.complete:
            return
        jobs.popleft()
        yield job if isinstance(job, Failure) else job.result()
