"""What a prompt can cost the scripted model, which runs beside everybody's runs."""

import re

from remit_agent_runtime import scripted


def test_rules_look_at_the_beginning_of_a_prompt_only(monkeypatch):
    seen = []
    real = re.search

    def search(pattern, text, flags=0):
        seen.append(len(text))
        return real(pattern, text, flags)

    monkeypatch.setattr(scripted.re, "search", search)
    rule = {"when": r"\b(?:weather)\b.*\bat\s+(?P<place>[a-z]{3})\b", "call": [], "answer": "{place}"}
    model = scripted.ScriptedModel.__new__(scripted.ScriptedModel)
    model._script, model._tools = [rule], {}
    model._steps("weather at 12 " * 2285)
    assert seen
    assert max(seen) <= scripted.MATCHED_CHARACTERS
