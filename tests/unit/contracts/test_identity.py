import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit_contracts.errors import MalformedIdentifier
from remit_contracts.identity import Handle, data_key_scope, is_label, label


@pytest.mark.parametrize(
    "value",
    ["", "-a", "a-", "A", "a_b", "a.b", "a b", "a\n", "\na", "ä", "а", "a\u200b", "a*", ">", "a" * 64, 7, None, b"a"],
)
def test_what_is_no_dns_label_is_no_identifier(value):
    assert not is_label(value)
    with pytest.raises(MalformedIdentifier) as refused:
        label(value)
    assert refused.value.refusal_code == "request.malformed_id"


@pytest.mark.parametrize("value", ["a", "0", "a-b", "u-1f", "a" * 63, "xn--bcher-kva"])
def test_a_dns_label_is_an_identifier_as_it_stands(value):
    assert label(value) == value


@given(st.text())
def test_nothing_but_a_dns_label_ever_passes(text):
    lawful = (
        0 < len(text) <= 63
        and all(c in "abcdefghijklmnopqrstuvwxyz0123456789-" for c in text)
        and text[0] != "-"
        and text[-1] != "-"
    )
    assert is_label(text) == lawful


@pytest.mark.parametrize("text", ["acme", "acme/", "/analyst", "acme/a/b", "Acme/analyst", "acme /analyst"])
def test_a_handle_needs_a_tenant_and_a_name(text):
    with pytest.raises(MalformedIdentifier):
        Handle.parse(text)


def test_two_users_never_share_a_key_scope():
    labels = ["a", "a-b", "b", "ab", "a-", "-b"]
    lawful = [(t, u) for t in labels for u in labels if is_label(t) and is_label(u)]
    assert len({data_key_scope(t, u) for t, u in lawful}) == len(lawful)
