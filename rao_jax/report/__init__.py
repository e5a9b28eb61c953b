"""A run, or several side by side, as one HTML file that needs no network."""

from rao_jax.report.page import write_report

__all__ = ["write_report"]
