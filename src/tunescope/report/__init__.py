"""What a reader sees: one self-contained page, figures, the terminal's table. Reads a comparison's payload, nothing else.

Importing this costs nothing: Altair, Jinja and vl-convert are imported when something is drawn, torch never.
"""

from __future__ import annotations

from tunescope.report.feature_lines import features_terminal
from tunescope.report.feature_page import feature_page
from tunescope.report.features_page import features_report
from tunescope.report.features_reading import page_name
from tunescope.report.figures import figures
from tunescope.report.page import render
from tunescope.report.run_page import run_report
from tunescope.report.study_page import study_charts, study_report
from tunescope.report.terminal import terminal

__all__ = [
    "feature_page",
    "features_report",
    "features_terminal",
    "figures",
    "page_name",
    "render",
    "run_report",
    "study_charts",
    "study_report",
    "terminal",
]
