"""A study in optuna-dashboard: its figures, a note and pictures, and a server that shows them."""

from msnas_optuna.report.dashboard.publish import Publisher, PublishingError, publish
from msnas_optuna.report.dashboard.serve import HOST, dashboard_server

__all__ = ["HOST", "Publisher", "PublishingError", "dashboard_server", "publish"]
