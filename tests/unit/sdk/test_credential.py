"""Who asks: what is given on the command line comes before the environment, and that before whom a command names."""

from __future__ import annotations

import pytest

from remit.cli.installation import credential


@pytest.mark.parametrize(
    ("as_", "token", "environment", "asks"),
    [
        (None, "T", "E", (None, "T")),
        ("acme/x", "T", "E", (None, "T")),
        ("acme/x", None, "E", ("acme/x", None)),
        (None, None, "E", (None, "E")),
        (None, None, "", ("acme/named", None)),
        (None, None, None, ("acme/named", None)),
    ],
)
def test_the_token_of_the_environment_comes_after_what_is_given_and_before_whom_the_command_names(
    monkeypatch: pytest.MonkeyPatch,
    as_: str | None,
    token: str | None,
    environment: str | None,
    asks: tuple[str | None, str | None],
) -> None:
    monkeypatch.delenv("REMIT_TOKEN", raising=False)
    if environment is not None:
        monkeypatch.setenv("REMIT_TOKEN", environment)
    assert credential(as_, token, named="acme/named") == asks
