"""Examining the way from this machine to a finished job, step by step; see `examine`."""

from distconv_client.doctor.finding import Finding
from distconv_client.doctor.run import Patient, examine

__all__ = ["Finding", "Patient", "examine"]
