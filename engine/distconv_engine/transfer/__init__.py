"""Bring sources in and outputs out: files, HTTP, ranges."""
