"""Prefect's HTTP API, as a browser would call it."""

import json
import urllib.request
from typing import Any


def call(url: str, body: Any = None) -> Any:
    """GET, or POST with a body; the answer's JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)
