"""The catalogue of requests and the services agree: what is promised is answered, and nothing else is."""

from importlib.metadata import entry_points

import pytest

from remit_chassis import operations
from remit_contracts.catalogue import OPERATIONS
from remit_contracts.subjects import SERVICES
from remit_infra.home import Home


@pytest.fixture
def home(tmp_path, monkeypatch):
    made = Home.create(tmp_path / "home")
    monkeypatch.setenv("REMIT_HOME", str(made.path))
    monkeypatch.delenv("REMIT_OPA_URL", raising=False)
    return made


def test_every_service_of_the_bus_is_installed():
    assert {entry.name for entry in entry_points(group="remit.services")} == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_answers_exactly_what_the_catalogue_says(home, name):
    (entry,) = entry_points(group="remit.services", name=name)
    module = __import__(entry.module, fromlist=["build"])
    settings = next(
        value for key, value in vars(module).items() if key.endswith("Settings") and key != "ServiceSettings"
    )
    service = module.build(settings())
    operations.register(service)
    answered = sorted((endpoint.kind, endpoint.service, endpoint.verb) for endpoint in service._endpoints)
    promised = sorted((o.kind, o.service, o.verb) for o in OPERATIONS if o.service == name)
    assert answered == promised
