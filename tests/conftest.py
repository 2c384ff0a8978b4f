"""The environment of every test, set before a library is imported: quiet, offline, homes of their own.

One thread per library: the machine's cores are for the children that the slow tests start.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from flows.environment import QUIET

HOMES = Path(tempfile.mkdtemp(prefix="malgil-tests-"))
atexit.register(shutil.rmtree, HOMES, ignore_errors=True)

os.environ.update(QUIET)
os.environ.update(
    {
        "PREFECT_HOME": str(HOMES / "prefect"),
        "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
        "DVC_SITE_CACHE_DIR": str(HOMES / "dvc"),
        "DVC_GLOBAL_CONFIG_DIR": str(HOMES / "dvc-config"),
        "HF_HOME": str(HOMES / "hf"),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
)
for name in (
    "PREFECT_API_URL",
    "MLFLOW_TRACKING_URI",
    "HF_TOKEN",
    "HF_ENDPOINT",
    "MALGIL_QUICK",
    "MALGIL_SET",
):
    os.environ.pop(name, None)
(HOMES / "prefect").mkdir()
