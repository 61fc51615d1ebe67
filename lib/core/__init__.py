"""Training and evaluation. ``build_task`` builds the task of an experiment."""

from lib.core.top_down import build_top_down as build_task

__all__ = ["build_task"]
