"""Prefect's HTTP API, as a browser would call it."""

import json
import time
import urllib.error
import urllib.request
from typing import Any

BUSY_S = 60.0


def call(url: str, body: Any = None) -> Any:
    """GET, or POST with a body; the answer's JSON. A server whose database is busy (503) is asked again."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > deadline:
                raise
            time.sleep(0.5)
