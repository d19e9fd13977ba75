"""The public kit for those who write plugins; see docs/plugins.md, "Testing a plugin".

| module | what is in it |
| --- | --- |
| `daemon` | a whole daemon in memory, and a client of it |
| `engine` | virtual engines |
| `clock` | a wall clock that a test sets |
| `store_suite` | what every store must pass |
| `policy_suite` | what every policy must pass |
| `authenticator_suite` | what every authenticator must pass |
| `listener_suite` | what every listener must pass |
| `faultdisk`, `power_cut` | a disk that fails on order |

It needs pytest, which the daemon does not; nothing outside of tests imports it.
"""
