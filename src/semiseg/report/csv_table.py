"""All runs as one CSV table: a line a run, averaged or not."""

import csv
import io
from collections.abc import Mapping
from typing import Any

from semiseg.report.aggregate import COSTS, PSEUDO, SCORES, logged, value
from semiseg.report.collect import RunRecord
from semiseg.report.facts import code_version
from semiseg.report.keys import PLAIN, known_values
from semiseg.report.model import Flagged, Study

NAMES = ("method", "dataset", "backbone", "model")


def render(study: Study) -> str:
    """Write the runs of a study as CSV text with a header line.

    Scores are shares between 0 and 1 as in ``summary.json``, times seconds, memory GiB; what is not known is
    empty. Columns: ``docs/report.md``.
    """
    flagged = {each.run.path: each for each in study.flagged}
    runs = {run.path: run for run in (*study.runs, *(each.run for each in study.flagged))}
    rows = [_row(study, run, flagged.get(path)) for path, run in sorted(runs.items())]
    text = io.StringIO()
    writer = csv.DictWriter(
        text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows({name: _plain(each) for name, each in row.items()} for row in rows)
    return text.getvalue()


def _row(study: Study, run: RunRecord, flagged: Flagged | None) -> dict[str, Any]:
    summary: Mapping[str, Any] = run.summary or {}
    journal = logged(run)
    counts, hashes = summary.get("split_counts") or {}, summary.get("split_sha256") or {}
    return {
        **known_values(run, list(dict.fromkeys([*study.by, *NAMES, *PLAIN]))),
        "averaged": "yes" if flagged is None or flagged.averaged else "no",
        "state": run.state,
        "flags": "; ".join(f"{flag.kind}: {flag.text}" for flag in flagged.flags) if flagged else "",
        "split_fraction": summary.get("split_fraction"),
        "labeled": counts.get("labeled"),
        "unlabeled": counts.get("unlabeled"),
        "labeled_sha256": hashes.get("labeled"),
        **{name: value(run, name) for name in dict.fromkeys([study.metric, *SCORES])},
        "best_iteration": summary.get("best_iteration"),
        **{name: journal.get(name, value(run, name)) for name in COSTS},
        **{name: journal.get(name) for name in PSEUDO},
        **{f"iou/{name}": value(run, f"iou/{name}") for name in study.classes},
        **{f"iou_test/{name}": value(run, f"iou_test/{name}") for name in study.classes},
        "device": summary.get("device"),
        "threads": summary.get("threads"),
        "code": code_version(run) if run.env else "",
        "path": str(run.path),
    }


def _plain(found: Any) -> Any:
    """Write whole numbers without a point."""
    return int(found) if isinstance(found, float) and found.is_integer() else found
