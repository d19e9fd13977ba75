"""Test an authenticator: inherit from `AuthenticatorSuite`.

    from distconvd.testing.authenticator_suite import AuthenticatorSuite

    class TestMine(AuthenticatorSuite):
        good_keys = {"anna's key": frozenset({"submit"})}

        @pytest.fixture
        def authenticator(self) -> Authenticator:
            return Mine(...)

`good_keys` are the keys that the fixture's authenticator accepts, with their roles. Set
`lets_everybody_in = True` for an authenticator that accepts every caller, with or without a key.
"""

# ruff: noqa: D102 (a test's name is its sentence)

import time
from collections.abc import Mapping
from typing import ClassVar

import pytest

from distconvd.auth import ALL_ROLES, Authenticator
from distconvd.edge.http import Principal
from distconvd.errors import Unauthorized

PEER = "10.0.0.7:42682"
ODD_PEERS = ["127.0.0.1:5000", "[::1]:5000", "10.0.0.7:1", "unix", ""]
CALLS = 1000
CALL_MS_MAX = 2.0
"""The most time of a call on average; it is made for each request, in the daemon's one thread."""
ODD_KEYS = [
    "",
    " ",
    "x",
    "\0",
    "ÿ" * 10,
    "x" * 8192,
    "\u00e4\u00f6",
    "' OR 1=1 --",
    "%s%n",
    "../..",
]
"""Keys as a header may contain them: each character is one byte."""


class AuthenticatorSuite:
    """The tests; give `good_keys` and the fixture `authenticator`."""

    good_keys: ClassVar[Mapping[str, frozenset[str]]] = {}
    lets_everybody_in: ClassVar[bool] = False

    @pytest.fixture
    def authenticator(self) -> Authenticator:
        raise NotImplementedError("override the fixture `authenticator`")

    def test_a_good_key_gives_a_principal_with_its_roles(
        self, authenticator: Authenticator
    ) -> None:
        assert self.good_keys or self.lets_everybody_in, "say which keys are good"
        for key, roles in self.good_keys.items():
            principal = authenticator.authenticate(key, PEER)
            assert isinstance(principal, Principal)
            assert principal.roles == roles
            assert principal.roles <= ALL_ROLES
            assert principal.name.isprintable()
            assert principal.name

    def test_a_principal_does_not_reveal_its_key(self, authenticator: Authenticator) -> None:
        for key in self.good_keys:
            assert key not in repr(authenticator.authenticate(key, PEER))

    def test_a_caller_without_a_key_is_rejected_unless_everybody_is_accepted(
        self, authenticator: Authenticator
    ) -> None:
        if self.lets_everybody_in:
            assert isinstance(authenticator.authenticate(None, PEER), Principal)
            return
        with pytest.raises(Unauthorized) as refused:
            authenticator.authenticate(None, PEER)
        assert "WWW-Authenticate" in refused.value.headers

    def test_a_key_that_is_nearly_right_is_wrong(self, authenticator: Authenticator) -> None:
        if self.lets_everybody_in:
            pytest.skip("no key is wrong")
        for key in self.good_keys:
            for near in (key + "x", "x" + key, key.swapcase(), key + "\0", key * 2):
                self._assert_wrong(authenticator, near)

    def test_a_part_of_a_key_is_wrong(self, authenticator: Authenticator) -> None:
        if self.lets_everybody_in:
            pytest.skip("no key is wrong")
        for key in self.good_keys:
            for at in range(1, len(key)):
                self._assert_wrong(authenticator, key[:at])
                self._assert_wrong(authenticator, key[at:])

    def test_every_character_of_a_key_counts(self, authenticator: Authenticator) -> None:
        if self.lets_everybody_in:
            pytest.skip("no key is wrong")
        for key in self.good_keys:
            for at, character in enumerate(key):
                other = "y" if character != "y" else "z"
                self._assert_wrong(authenticator, key[:at] + other + key[at + 1 :])

    def test_neither_an_address_nor_an_earlier_caller_replaces_the_key(
        self, authenticator: Authenticator
    ) -> None:
        if self.lets_everybody_in:
            pytest.skip("everybody is accepted")
        for peer in ODD_PEERS:
            for key in self.good_keys:
                authenticator.authenticate(key, peer)
            for wrong in (None, "", "a wrong key"):
                with pytest.raises(Unauthorized):
                    authenticator.authenticate(wrong, peer)

    def _assert_wrong(self, authenticator: Authenticator, key: str) -> None:
        if key not in self.good_keys:
            with pytest.raises(Unauthorized):
                authenticator.authenticate(key, PEER)

    def test_odd_keys_are_rejected_and_break_nothing(self, authenticator: Authenticator) -> None:
        if self.lets_everybody_in:
            pytest.skip("no key is wrong")
        for key in ODD_KEYS:
            with pytest.raises(Unauthorized) as refused:
                authenticator.authenticate(key, PEER)
            assert "WWW-Authenticate" in refused.value.headers
            assert len(key) < 4 or key not in refused.value.detail
        for key in self.good_keys:
            authenticator.authenticate(key, PEER)

    def test_a_call_is_quick_for_good_keys_and_for_wrong_ones(
        self, authenticator: Authenticator
    ) -> None:
        began_s = time.perf_counter()
        for number in range(CALLS):
            key = next(iter(self.good_keys), None) if number % 2 else f"wrong-{number}"
            try:
                authenticator.authenticate(key, PEER)
            except Unauthorized:
                assert key not in self.good_keys
        assert (time.perf_counter() - began_s) * 1000 / CALLS < CALL_MS_MAX
