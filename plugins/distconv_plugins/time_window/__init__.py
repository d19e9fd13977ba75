"""Limit engines and priorities to days and hours, around any other policy."""
