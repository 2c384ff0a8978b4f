"""MLflow runs that a killed run left RUNNING: nobody will finish them, so they are marked as killed."""

import logging
import time

from tasks.release.registry import Registry, explained

LEFT_S = 3600.0
log = logging.getLogger(__name__)


def close_left_runs(registry: Registry, experiment: str) -> None:
    """Marks as killed the runs of this kind that were begun over an hour ago and never finished.

    Nothing trains inside an MLflow run here: one is written in seconds, after the fact. The same record
    written again completes its run, whatever it was marked as.

    Raises:
        PublishError: the store cannot be reached or read.
    """
    begun_ms = (time.time() - LEFT_S) * 1000
    left = f"attributes.status = 'RUNNING' AND attributes.start_time < {begun_ms:.0f}"
    with explained(registry.uri):
        for run in registry.client.search_runs([registry.experiment(experiment)], left):
            if "malgil.key" in run.data.tags:
                registry.client.set_terminated(run.info.run_id, "KILLED")
                log.info("MLflow run %s was left running by a killed run; now KILLED", run.info.run_id)
