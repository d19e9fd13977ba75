"""Limit when engines and priorities work: days and hours around any other policy."""
