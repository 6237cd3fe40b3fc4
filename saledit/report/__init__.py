"""What people see and keep of a run: progress, tables, plots, results on disk."""

from saledit.report.courses import course_figure, courses_figure, courses_of
from saledit.report.figures import saliency_figure, training_figure
from saledit.report.plots import write_plot
from saledit.report.quiet import quiet_libraries, use_threads
from saledit.report.render import render
from saledit.report.results import annotated_yaml, write_results
from saledit.report.scatter import comparison_figure
from saledit.report.schedules import schedules_figure
from saledit.report.training import training_bar
from saledit.report.ui import Bar, Ui

__all__ = [
    "Bar",
    "Ui",
    "annotated_yaml",
    "comparison_figure",
    "course_figure",
    "courses_figure",
    "courses_of",
    "quiet_libraries",
    "render",
    "saliency_figure",
    "schedules_figure",
    "training_bar",
    "training_figure",
    "use_threads",
    "write_plot",
    "write_results",
]
