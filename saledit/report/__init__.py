"""What people see and keep of a run: progress, tables, plots, results on disk."""

from saledit.report.plots import plot_comparison, plot_course, plot_courses, plot_saliency
from saledit.report.quiet import quiet_libraries, use_threads
from saledit.report.render import render
from saledit.report.results import annotated_yaml, write_results
from saledit.report.training import training_bar
from saledit.report.ui import Bar, Ui

__all__ = [
    "Bar",
    "Ui",
    "annotated_yaml",
    "plot_comparison",
    "plot_course",
    "plot_courses",
    "plot_saliency",
    "quiet_libraries",
    "render",
    "training_bar",
    "use_threads",
    "write_results",
]
