"""What a command has to say: the contract's JSON, and the report for people."""

from dataclasses import dataclass
from typing import Any

from tapeout.report.figure import Report


@dataclass(frozen=True, slots=True)
class Summary:
    """Both forms of one answer."""

    json: dict[str, Any]
    report: Report
