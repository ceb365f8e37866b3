"""Which model an agent runs on: a provider's when its key is in the environment, else the scripted one.

Nothing here imports a provider's library: names are settled at acceptance and frozen in the run, clients are built
when first used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Final, NamedTuple

from remit_contracts.errors import Refusal

SCRIPTED: Final = "scripted"


class Provider(NamedTuple):
    """`keys`: environment variables of which one must be set. `library`: what pydantic-ai needs to speak to it."""

    keys: tuple[str, ...]
    default_model: str
    library: str


PROVIDERS: Final[Mapping[str, Provider]] = {
    "openai": Provider(("OPENAI_API_KEY",), "gpt-5.6-luna", "openai"),
    "anthropic": Provider(("ANTHROPIC_API_KEY",), "claude-sonnet-4-6", "anthropic"),
    "google": Provider(("GOOGLE_API_KEY", "GEMINI_API_KEY"), "gemini-3.8-flash", "google.genai"),
    "mistral": Provider(("MISTRAL_API_KEY",), "mistral-large-latest", "mistralai"),
    "groq": Provider(("GROQ_API_KEY",), "openai/gpt-oss-120b", "groq"),
    "openrouter": Provider(("OPENROUTER_API_KEY",), "openai/gpt-5.6-luna", "openai"),
    "ollama": Provider(("OLLAMA_BASE_URL",), "llama3.2", "openai"),
}
"""By pydantic-ai's names, in the order in which `default` looks for one."""


class ModelUnavailable(Refusal):
    """The agent asks for a model that this runtime cannot reach."""

    code = "agent.model_unavailable"


def is_installed(library: str) -> bool:
    """Whether a provider's library can be imported, without importing it."""
    try:
        return find_spec(library) is not None
    except ModuleNotFoundError:
        return False


class Models:
    """Settles names. `default_model` overrides what `default` means."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        default_model: str = "default",
        installed: Callable[[str], bool] = is_installed,
    ) -> None:
        self._environment = environment
        self._default_model = default_model
        self._installed = installed

    def settle(self, wanted: str) -> str:
        """`scripted` or PROVIDER:NAME for an agent's `model`; raises ModelUnavailable, naming what to set or
        install."""
        if wanted == "default":
            wanted = self._default_model
        if wanted == "default":
            return self._first_usable()
        if wanted == SCRIPTED:
            return SCRIPTED
        name = wanted.partition(":")[0]
        provider = PROVIDERS.get(name)
        if provider is None:
            raise ModelUnavailable(f"no provider {name!r} for {wanted!r}: known are {', '.join(PROVIDERS)}, scripted")
        if not self._has_a_key(provider):
            raise ModelUnavailable(f"{wanted!r} needs {' or '.join(provider.keys)} in the agent runtime's environment")
        if not self._installed(provider.library):
            raise ModelUnavailable(
                f"{wanted!r} needs `pip install 'pydantic-ai-slim[{name}]'` beside the agent runtime"
            )
        return wanted

    def _first_usable(self) -> str:
        for name, provider in PROVIDERS.items():
            if self._has_a_key(provider) and self._installed(provider.library):
                return f"{name}:{provider.default_model}"
        return SCRIPTED

    def _has_a_key(self, provider: Provider) -> bool:
        return any(self._environment.get(key) for key in provider.keys)
