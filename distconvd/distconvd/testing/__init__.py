"""The public kit for those who write plugins: conformance suites, and a disk that fails on order.

It needs pytest, which the daemon does not; nothing outside of tests imports it.
"""
