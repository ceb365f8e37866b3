"""The policies themselves: their own tests on both engines, and what holds between them and the contracts."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import regorus

import remit_policy
from remit_contracts.decisions import ACTIONS
from remit_policy.policies import Policies, base_policies, base_policy_tests

REGO = Path(remit_policy.__file__).parent / "rego"


def rego_tests():
    for name, source in base_policy_tests().modules.items():
        package = re.search(r"^package (\S+)", source, re.MULTILINE)[1]
        for rule in re.findall(r"^(test_\w+)", source, re.MULTILINE):
            yield pytest.param(f"data.{package}.{rule}", id=f"{name.rsplit('/', 1)[-1]}:{rule}")


@pytest.fixture(scope="module")
def engine():
    engine = regorus.Engine()
    for name, source in {**base_policies().modules, **base_policy_tests().modules}.items():
        engine.add_policy(name, source)
    return engine


@pytest.mark.parametrize("rule", list(rego_tests()))
def test_the_policys_own_test_passes_on_the_embedded_engine(engine, rule):
    assert engine.eval_rule(rule) is True


def test_a_rego_test_that_fails_is_noticed(engine):
    broken = regorus.Engine()
    broken.add_policy("x_test.rego", "package x_test\nimport rego.v1\ntest_it if 1 == 2\n")
    assert broken.eval_rule("data.x_test.test_it") is not True


def test_every_policy_file_has_its_test_beside_it():
    for path in base_policies().modules:
        assert path.replace(".rego", "_test.rego") in base_policy_tests().modules


def test_a_package_is_named_after_its_folder():
    for path, source in base_policies().modules.items():
        assert f"package {path.rsplit('/', 1)[0].replace('/', '.')}\n" in source


def test_policy_and_contracts_know_the_same_actions(engine):
    assert set(engine.eval_rule("data.remit.base.known_actions")) == ACTIONS


def test_the_policies_use_no_builtin_that_reaches_outside():
    for source in base_policies().modules.values():
        assert not re.search(r"\b(http|net|opa|time|rand|uuid|trace|io)\.\w+\(", source)


def test_the_digest_names_the_policies_exactly():
    digest = base_policies().digest
    assert re.fullmatch(r"[0-9a-f]{64}", digest)
    modules = base_policies().modules
    assert Policies(dict(reversed(modules.items()))).digest == digest
    assert Policies({**modules, "x.rego": ""}).digest != digest
    first = next(iter(modules))
    assert Policies({**modules, first: modules[first] + "\n"}).digest != digest
    assert Policies({"a": "bc"}).digest != Policies({"ab": "c"}).digest


def opa(*arguments):
    program = shutil.which("opa")
    if not program:
        pytest.skip("no `opa` on the PATH")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.real_opa
def test_opa_compiles_the_policies_strictly():
    assert opa("check", "--strict", str(REGO)).stderr == ""


@pytest.mark.real_opa
def test_the_policies_own_tests_pass_on_opa_and_cover_every_line():
    ran = opa("test", "--coverage", "--threshold", "100", str(REGO))
    assert ran.returncode == 0, ran.stdout[-2000:]


@pytest.mark.real_opa
def test_the_policies_are_formatted():
    assert opa("fmt", "--list", str(REGO)).stdout == ""
