"""Examining the way from this machine to a finished job, step by step; see `examine`."""

from distconv_client.doctor.examination import Patient, examine
from distconv_client.doctor.finding import Finding

__all__ = ["Finding", "Patient", "examine"]
