"""MLflow runs that a killed run left running.

Nothing trains inside an MLflow run here: one is written in seconds, after the fact (`registry`). So a run
that was begun over an hour ago and never finished has lost its writer. The same record written again
completes it, whatever it was marked as.
"""

import logging
import time

from tasks.release.registry import Registry, explained

LEFT_S = 3600.0
log = logging.getLogger(__name__)


def close_left_runs(registry: Registry, experiment: str) -> None:
    """Marks our unfinished runs of an experiment as killed, if they were begun over an hour ago.

    Raises:
        PublishError, CapacityError: the MLflow store refused.
    """
    begun_ms = (time.time() - LEFT_S) * 1000
    left = f"attributes.status = 'RUNNING' AND attributes.start_time < {begun_ms:.0f}"
    with explained(registry.uri):
        for run in registry.client.search_runs([registry.experiment(experiment)], left):
            if "malgil.key" in run.data.tags:
                registry.client.set_terminated(run.info.run_id, "KILLED")
                log.info("MLflow run %s was left running by a killed run; now KILLED", run.info.run_id)
