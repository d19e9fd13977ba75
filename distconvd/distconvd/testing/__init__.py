"""Test plugins: the public kit for plugin authors; see docs/plugins.md, "Testing a plugin".

| module | contents |
| --- | --- |
| `daemon` | a whole daemon in memory, and a client of it |
| `engine` | virtual engines |
| `clock` | a wall clock that a test sets |
| `store_suite` | the tests that every store must pass |
| `policy_suite` | the tests that every policy must pass |
| `authenticator_suite` | the tests that every authenticator must pass |
| `listener_suite` | the tests that every listener must pass |
| `faultdisk`, `power_cut` | a disk that fails on demand |

The kit needs pytest, which the daemon does not; only tests import it.
"""
