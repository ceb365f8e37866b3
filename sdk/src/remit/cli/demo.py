"""`remit demo`: the main job on real input, every expectation checked."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path

from rich.text import Text

from remit.cli.context import current
from remit.cli.installation import endpoints, installer
from remit.cli.offline import offline
from remit.cli.output import emit, inert, out, say
from remit.demo.expectations import Step, Story, expect
from remit.demo.platform import Platform
from remit.demo.story import Cast, tell
from remit.demo.tampering import Altered, alter_a_copy
from remit.demo.weather_desk import WeatherDesk


def demo(*, keep: bool = False) -> int:
    """Start a platform of its own with the demo tenants, do the main job, check everything, stop it.

    Exits 0 only when every expectation held. With a provider's key in the environment (OPENAI_API_KEY and others)
    the agents use that model, else the scripted one, which is no language model and says so.

    Parameters
    ----------
    keep
        Keep the demo's home directory and print its path.
    """
    began = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix="remit-demo-"))
    story = Story(told=_told, begun=_begun)
    home, current.home = current.home, folder / "home"
    try:
        asyncio.run(_play(story, folder))
    finally:
        current.home = home
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    seconds = round(time.perf_counter() - began, 1)
    result = {
        "ok": story.ok,
        "seconds": seconds,
        "home": str(folder / "home") if keep else None,
        "steps": [step.as_dict() for step in story.steps],
    }
    emit(result, lambda: _conclude(story, seconds, folder if keep else None))
    return 0 if story.ok else 1


async def _play(story: Story, folder: Path) -> None:
    from remit.demo_data import install, point_weather_desk
    from remit_infra.home import Home

    with WeatherDesk() as desk:
        home = Home.create(folder / "home")
        install(home.path)
        point_weather_desk(home.path, desk.address)

        async def start(step: Step) -> str:
            await platform.__aenter__()
            return f"every service ready, home {home.path}"

        platform = Platform(home.path, progress=lambda line: say(f"  {line}"))
        try:
            if not await story.step("start", "the platform starts", "every part ready", start):
                return
            async with installer(endpoints()["nats"]) as office:
                cast = Cast(endpoints()["nats"], office)
                try:
                    await tell(story, cast, desk)
                finally:
                    await cast.close()
        finally:
            await platform.stop()

    async def intact(step: Step) -> str:
        report = await asyncio.to_thread(offline, "audit-check", home=home.path)
        expect(report["ok"], f"faults: {report['tenants']}")
        return f"{sum(tenant['entries'] for tenant in report['tenants'])} records intact"

    async def tampered(step: Step) -> str:
        copy = folder / "tampered"
        altered = await asyncio.to_thread(alter_a_copy, home.path, copy, service="agent-runtime", tenant="acme")
        report = await asyncio.to_thread(offline, "audit-check", home=copy)
        expect(not report["ok"], "a changed byte was not noticed")
        named = [fault for tenant in report["tenants"] for fault in tenant["faults"] if _names(fault, altered)]
        expect(named, f"the check does not name {altered}: {report['tenants']}")
        step.facts.update(altered=altered._asdict(), faults=named)
        return f"the check names {altered.service} #{altered.notification_id} of {altered.tenant}"

    await story.step("intact", "the stopped home is checked offline", "every copy and proof intact", intact)
    await story.step(
        "tampered", "a byte of a stored event is changed in a copy", "the check names the record", tampered
    )


def _names(fault: dict[str, object], altered: Altered) -> bool:
    return fault.get("service") == altered.service and fault.get("notification_id") == altered.notification_id


def _begun(step: Step) -> None:
    if not current.wants_json:
        say(f"... {step.title}")


def _told(step: Step) -> None:
    if current.wants_json:
        return
    mark, style = ("ok  ", "bold green") if step.ok else ("FAIL", "bold red")
    out.print(
        Text(mark, style=style), Text(f" {step.title} ", style="bold"), Text(f"{step.seconds:.2f} s", "dim"), sep=""
    )
    out.print(Text("     "), inert(step.seen), sep="")
    if answer := step.facts.get("answer"):
        out.print(Text("     "), inert(str(answer)[:600]), sep="", style="dim")


def _conclude(story: Story, seconds: float, kept: Path | None) -> None:
    held = sum(step.ok for step in story.steps)
    style = "bold green" if story.ok else "bold red"
    out.print(Text(f"{held} of {len(story.steps)} expectations held, in {seconds:g} s.", style=style))
    if kept:
        say(f"home kept: {kept}/home; look around: remit up --home {kept}/home")
    elif story.ok:
        say('next: remit up --demo, then remit run analyst "..." --as acme/analyst')
