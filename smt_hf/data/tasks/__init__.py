"""Synthetic tasks: endless generated rows with one known answer each."""

from .retrieval import RetrievalTask

TASKS = {"retrieval": RetrievalTask}

__all__ = ["TASKS", "RetrievalTask"]
