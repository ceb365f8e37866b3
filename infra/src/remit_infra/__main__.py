"""For whoever deploys containers: `python -m remit_infra deploy DIR`, then `... streams HOME URL [TENANT...]`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from remit_contracts.errors import Refusal
from remit_contracts.identity import PLATFORM_TENANT
from remit_infra.deployment import deploy
from remit_infra.home import Home
from remit_infra.streams import ensure_streams

USAGE = "python -m remit_infra deploy DIR | streams HOME URL [TENANT...]"


def main(arguments: list[str]) -> int:
    """Exit code 0, 2 for a wrong use, or the refusal's own."""
    try:
        match arguments:
            case ["deploy", directory]:
                made = deploy(Path(directory))
                print(f"{directory}: {len(made)} secrets made, configuration rendered")
            case ["streams", home, url, *tenants]:
                streams = asyncio.run(ensure_streams(Home(Path(home)), url, [PLATFORM_TENANT, *tenants]))
                print(f"streams made: {', '.join(streams) or 'none, all were there'}")
            case _:
                print(f"usage: {USAGE}", file=sys.stderr)
                return 2
    except Refusal as refusal:
        print(refusal.reason, file=sys.stderr)
        return refusal.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
