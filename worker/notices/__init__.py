"""What owners are told of their mail, and what becomes of dead letters that are old."""

from worker.notices.office import open_office

__all__ = ["open_office"]
