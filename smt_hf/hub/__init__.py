"""Sharing: the model card, written from the run's own record, and the upload."""
