"""A page in Debian's chromium: what the browser made of it, asked by a script in a copy of the page."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--virtual-time-budget=4000",
)


def measure(page: Path, expression: str, folder: Path, width: int = 400) -> Any:
    """The JSON value of a JavaScript expression (`d` is the document) once the page is laid out.

    Args:
        page: the HTML file; it runs no script itself, so a copy is made that may.
        folder: where the copy and the browser's profile go.
        width: of the window, CSS pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder / "probe.html"
    script = f"<script>addEventListener('load',()=>{{const d=document;d.title=JSON.stringify({expression})}})</script>"
    open_policy = page.read_text().replace(
        "default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';"
    )
    probe.write_text(open_policy.replace("</head>", script + "</head>"))
    command = ["chromium", *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900"]
    done = subprocess.run(
        [*command, "--dump-dom", probe.as_uri()], capture_output=True, text=True, timeout=240, check=True
    )
    title = re.search(r"<title>([\[{].*?[\]}])</title>", done.stdout, re.DOTALL)
    assert title, done.stdout[:500]
    return json.loads(title[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
