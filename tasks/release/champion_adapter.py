"""The adapter of the language model that serves: what a retraining can go on from."""

import logging
from pathlib import Path

from tasks.release.judgement import model_name, published_of
from tasks.release.publish import make_publisher
from tasks.release.registry import Registry
from tasks.settings import Params

log = logging.getLogger(__name__)


def champion_adapter(params: Params, store_dir: Path) -> Path | None:
    """The folder of that adapter, fetched if it is on the Hub; None when no version serves.

    Raises:
        PublishError: the version's files are gone or changed, or MLflow cannot be reached.
        ConflictError: another process holds the MLflow store.
    """
    champion = Registry(params.registry).by_alias(model_name("llm", params), params.registry.environments[0])
    if champion is None:
        log.info("no language model serves yet: training starts from train_llm.initial")
        return None
    published = published_of(champion)
    publisher = make_publisher(published.target, params.publish, store_dir)
    folder = publisher.fetch(published.repository, published.revision) / "adapter"
    log.info("training goes on from the adapter of version %d, which serves", champion.number)
    return folder
