"""Check every step from this machine to a finished job; see `run_checks`."""

from distconv_client.doctor.finding import Finding
from distconv_client.doctor.run import DoctorConfig, run_checks

__all__ = ["DoctorConfig", "Finding", "run_checks"]
