"""Closing flow runs whose process is gone.

`processes`: who lives here. `judge`: who is dead. `reaper`: Prefect's books. `worker`: a worker with a name.
"""
