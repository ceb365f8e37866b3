# The habits of this project; `just` alone lists them.

set shell := ["bash", "-euo", "pipefail", "-c"]

_default:
    @just --list

# Start the platform and serve until interrupted
up *args:
    uv run remit up {{args}}

# The main job, on real input
demo *args:
    uv run remit demo {{args}}

# All tests but the long campaigns
test *args:
    uv run --group test pytest -n 2 --dist loadfile -m "not slow" {{args}}

# Every test, the long campaigns too
test-all *args:
    uv run --group test pytest --timeout 3000 {{args}}

# Lint, types, architecture, dependencies, policies
check:
    uv run --group check ruff check .
    uv run --group check ruff format --check .
    uv run --group check mypy
    uv run --group check lint-imports
    bash .ci/deptry
    bash .ci/rego

# Format the code
fmt:
    uv run --group check ruff format .
    uv run --group check ruff check --fix .

# Every number that we claim, with the floor of the same run
bench *args:
    uv run remit bench {{args}}

# Kill services and the bus under load, for minutes, by seed
chaos *args:
    uv run --group test pytest tests/chaos --timeout 3000 -s {{args}}

# Generate JSON Schemas and the AsyncAPI document
schemas:
    uv run --group test python -m remit_contracts.schemas contracts/schemas
