"""What the reaper found, on the terminal or as JSON."""

import json

from flows.reaping.reaper import Report


def print_report(report: Report, *, as_json: bool) -> None:
    """Prints one look: every unfinished run and what became of it, and what was freed."""
    if as_json:
        print(json.dumps(report.as_dict(), ensure_ascii=False, indent=2))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not report.runs:
        console.print("No flow run is unfinished.")
    else:
        table = Table(box=box.SIMPLE_HEAD, title="Unfinished flow runs", title_justify="left")
        for heading in ("run", "state", "found", "why"):
            table.add_column(heading, overflow="fold")
        for run in report.runs:
            found = "closed" if run.closed else {"unknown": "left alone"}.get(run.fate, run.fate)
            table.add_row(f"{run.name}\n{run.id}", run.state.title(), found, run.reason)
        console.print(table)
    for slots in report.slots:
        console.print(f"{slots.limit}: {slots.counted} slots were held for {slots.held} runs; corrected")
    if report.leases:
        console.print(f"{len(report.leases)} leases that no run held were released")
