"""The command line without a platform: its lists, its words for bad usage, and readers that leave."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from remit.cli.__main__ import COMMANDS, invoke


@pytest.mark.parametrize("place", COMMANDS)
def test_the_list_says_of_a_command_what_the_command_says_of_itself(place: str) -> None:
    module, _, attribute = place.rpartition(":")
    found = getattr(importlib.import_module(f"remit.cli.{module}"), attribute)
    said = found.help if attribute == "app" else " ".join(found.__doc__.partition("\n\n")[0].split())
    assert COMMANDS[place] == said


def test_the_list_of_commands_describes_each_and_imports_none() -> None:
    asked = (
        "import sys; from remit.cli.__main__ import COMMANDS, invoke; assert invoke(['--help']) == 0;"
        "print(sorted({'remit.cli.' + place.partition(':')[0] for place in COMMANDS} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    listed, _, imported = done.stdout.rstrip().rpartition("\n")
    assert imported == "[]"
    shown = " ".join(listed.replace("│", " ").split())
    for place, summary in COMMANDS.items():
        assert summary in shown, place


def test_a_commands_own_help_says_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["demo", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert COMMANDS["demo:demo"] in shown
    assert "Exits 0 only when every expectation held." in shown


@pytest.mark.parametrize("arguments", [["run"], ["runs", "bogus"], ["trail", "show", "acme/x", "--limit"], ["nosuch"]])
def test_bad_usage_is_told_in_whole_sentences(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(arguments) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert said.endswith(" See `remit --help`.")
    assert ".." not in said.replace("...", "")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        *((["trail", "show", "acme/x", "--limit", number], "--limit") for number in ("0", "-3")),
        (["trail", "show", "acme/x", "--limit", "0", "--offline"], "--limit"),
        (["trail", "show", "acme/x", "--after", "-1"], "--after"),
        (["trail", "replay", "acme/x", "--after", "-1"], "--after"),
        *((["trail", verb, "acme/x", "--after", str(2**62)], "--after") for verb in ("show", "replay")),
        (["trail", "show", "acme/x", "--after", "9" * 23], "--after"),
        (["trail", "show", "acme/x", "--after", "9" * 23, "--offline"], "--after"),
        (["trail", "prove", "acme/x", "9" * 24], "INDEX"),
        *((["runs", "list", "--limit", number], "--limit") for number in ("0", "501", "9" * 23)),
        *((["trail", "replay", "acme/x", "--speed", number], "--speed") for number in ("-1", "nan", "inf")),
        (["trail", "prove", "acme/x", "--", "-1"], "INDEX"),
        *((["token", "acme/x", "--ttl", number], "--ttl") for number in ("0", "-3", "100000000000")),
        *((["run", "a", "p", "--timeout", number], "--timeout") for number in ("0", "-1", "nan", "inf")),
        *((["bench", "--seconds", number], "--seconds") for number in ("0", "-1", "nan")),
        *((["up", "--nats-port", number], "--nats-port") for number in ("0", "-1", "99999")),
    ],
)
def test_a_number_out_of_bounds_is_told_as_usage_before_anything_is_done(
    arguments: list[str], option: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert invoke([*arguments, "--home", str(tmp_path / "home")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert option in said
    assert "Must be" in said
    assert said.endswith(" See `remit --help`.")
    assert not (tmp_path / "home").exists()


def without_a_reader(*arguments: str, both: bool = False) -> tuple[int, str]:
    """Exit code and standard error of a command whose standard output (or both) nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(  # noqa: PLW1510 (the exit code is what is tested)
            [sys.executable, "-m", "remit.cli", *arguments],
            stdout=writing,
            stderr=writing if both else subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writing)
    return done.returncode, done.stderr or ""


def test_a_reader_that_leaves_changes_no_exit_code_and_sees_no_stack_trace() -> None:
    assert without_a_reader("--help") == (0, "")
    code, said = without_a_reader("runs", "bogus", "--output", "json")
    assert (code, said.partition(":")[0]) == (2, "request.usage")
    assert "Traceback" not in said
    assert without_a_reader("runs", "bogus", both=True) == (2, "")
