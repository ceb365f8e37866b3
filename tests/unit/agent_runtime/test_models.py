"""Which model `default` is, and what is refused."""

from __future__ import annotations

import pytest

from remit_agent_runtime.models import Models, ModelUnavailable


def everything(library: str) -> bool:
    return True


def test_without_any_key_the_default_is_the_scripted_model() -> None:
    assert Models({}).settle("default") == "scripted"


def test_the_first_provider_with_a_key_is_the_default() -> None:
    assert Models({"OPENAI_API_KEY": "k"}, installed=everything).settle("default").startswith("openai:")
    assert Models({"ANTHROPIC_API_KEY": "k"}, installed=everything).settle("default").startswith("anthropic:")


def test_a_provider_whose_library_is_missing_is_not_the_default() -> None:
    assert Models({"ANTHROPIC_API_KEY": "k"}, installed=lambda library: False).settle("default") == "scripted"


def test_an_empty_key_is_no_key() -> None:
    assert Models({"OPENAI_API_KEY": ""}, installed=everything).settle("default") == "scripted"


def test_scripted_stays_scripted_whatever_keys_there_are() -> None:
    assert Models({"OPENAI_API_KEY": "k"}, installed=everything).settle("scripted") == "scripted"


def test_what_default_means_can_be_set() -> None:
    assert Models({"OPENAI_API_KEY": "k"}, default_model="scripted").settle("default") == "scripted"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("openai:gpt-5", "needs OPENAI_API_KEY"),
        ("google:x", "GOOGLE_API_KEY or GEMINI_API_KEY"),
        ("nobody:x", "no provider 'nobody'"),
    ],
)
def test_a_named_model_without_its_key_is_refused_with_what_to_set(wanted: str, said: str) -> None:
    with pytest.raises(ModelUnavailable, match=said):
        Models({}).settle(wanted)


def test_a_named_model_without_its_library_is_refused_with_what_to_install() -> None:
    with pytest.raises(ModelUnavailable, match=r"pydantic-ai-slim\[anthropic\]"):
        Models({"ANTHROPIC_API_KEY": "k"}, installed=lambda library: False).settle("anthropic:claude-sonnet-4-6")
