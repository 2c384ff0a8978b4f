"""When things run, and in what order: the only room that imports Prefect."""
