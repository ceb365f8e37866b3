"""One HTTP request with a leased bearer credential: to the tool's own host only, once, without following redirects.

Each call has a connection of its own, closed after it: no cookie, no pooled socket and no late answer can pass from one
user's call to another's.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode, urlsplit

import orjson

from remit_agent_runtime.toolhost.definitions import PLACEHOLDER, HttpTool, Parameter
from remit_agent_runtime.toolhost.refusals import (
    BAD_ARGUMENTS,
    HTTP_STATUS,
    LEASE_INVALID,
    MALFORMED_RESULT,
    OUTCOME_UNKNOWN,
    RESULT_TOO_LARGE,
    TIMEOUT,
    UNREACHABLE,
    ToolRefused,
)
from remit_agent_runtime.toolhost.scrub import Scrubber
from remit_contracts.fast_leases import LeaseContent

if TYPE_CHECKING:
    import ssl

MAX_URL_CHARACTERS: Final = 8_000
CONNECT_SECONDS: Final = 5.0
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}


def check_arguments(tool: HttpTool, arguments: dict[str, Any]) -> None:
    """Raises ToolRefused naming the argument."""
    if unknown := sorted(set(arguments) - set(tool.parameters)):
        raise ToolRefused(f"no such argument: {', '.join(unknown)[:200]}", code=BAD_ARGUMENTS)
    for name, parameter in tool.parameters.items():
        if name not in arguments:
            if parameter.required:
                raise ToolRefused(f"the argument {name} is missing", code=BAD_ARGUMENTS)
        elif not _fits(arguments[name], parameter):
            raise ToolRefused(f"the argument {name} does not fit {parameter.schema()}", code=BAD_ARGUMENTS)


def url_of(tool: HttpTool, arguments: dict[str, Any]) -> str:
    """The URL with its path filled in and, for GET, the other arguments as its query; raises ToolRefused."""
    in_path = set(PLACEHOLDER.findall(tool.url))
    for name in in_path:
        value = _shown(arguments[name])
        if value in ("", ".", "..") or any(ord(char) < 32 or ord(char) == 127 for char in value):
            raise ToolRefused(f"the argument {name} cannot stand in a path", code=BAD_ARGUMENTS)
    url = PLACEHOLDER.sub(lambda found: quote(_shown(arguments[found.group(1)]), safe=""), tool.url)
    rest = {name: _shown(value) for name, value in arguments.items() if name not in in_path}
    if tool.method == "GET" and rest:
        url += f"?{urlencode(rest)}"
    if len(url) > MAX_URL_CHARACTERS:
        raise ToolRefused(f"the URL would be over {MAX_URL_CHARACTERS} characters", code=BAD_ARGUMENTS)
    if (urlsplit(url).scheme, urlsplit(url).netloc) != (urlsplit(tool.url).scheme, urlsplit(tool.url).netloc):
        raise ToolRefused("the arguments would change the host", code=BAD_ARGUMENTS)
    return url


async def request(tool: HttpTool, arguments: dict[str, Any], lease: LeaseContent, *, key: str, seconds: float) -> Any:
    """The answer's JSON, or its text, without the credential.

    `key` is sent as Idempotency-Key. Raises ToolRefused; its code is OUTCOME_UNKNOWN when the request may have been
    acted on (never for GET, which by RFC 9110 has no effect).
    """
    check_arguments(tool, arguments)
    url = url_of(tool, arguments)
    if _authority(tool.host, tool.url) not in {_authority(host, tool.url) for host in lease.hosts}:
        raise ToolRefused(f"the lease does not allow the host {tool.host}", code=LEASE_INVALID)
    in_path = set(PLACEHOLDER.findall(tool.url))
    body = {name: value for name, value in arguments.items() if name not in in_path}
    scrubber = Scrubber(lease.secret)
    status, kind, raw = await _send(tool, url, body, lease.secret, key=key, seconds=seconds)
    answer = scrubber.clean(_decoded(kind, raw))
    if not 200 <= status < 300:
        hint = " and redirects are not followed" if 300 <= status < 400 else ""
        raise ToolRefused(
            f"{tool.host} answered {status}{hint}", code=HTTP_STATUS, content={"status": status, "body": answer}
        )
    return answer


async def _send(
    tool: HttpTool, url: str, body: dict[str, Any], secret: str, *, key: str, seconds: float
) -> tuple[int, str, bytes]:
    """Status, content type and body. Raises ToolRefused, never with the library's text, which may hold headers."""
    import httpx2

    headers = {
        "Authorization": f"Bearer {secret}",
        "Idempotency-Key": key,
        "Accept": "application/json, text/*;q=0.5",
        "Accept-Encoding": "identity",  # a compressed answer could unfold to any size
        "User-Agent": "remit-tool-host",
    }
    content = None
    if tool.method != "GET":
        content, headers["Content-Type"] = orjson.dumps(body), "application/json"
    # trust_env off: no proxy and no netrc from outside may redirect a credential.
    verify = _tls() if url.startswith("https:") else False
    try:
        async with (
            asyncio.timeout(seconds),
            httpx2.AsyncClient(
                verify=verify,
                trust_env=False,
                follow_redirects=False,
                timeout=httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS)),
                limits=httpx2.Limits(max_connections=1, max_keepalive_connections=0),
            ) as client,
            client.stream(tool.method, url, headers=headers, content=content) as response,
        ):
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise ToolRefused(f"{tool.host} compressed its answer unasked", code=MALFORMED_RESULT)
            raw = b""
            async for chunk in response.aiter_raw():
                raw += chunk
                if len(raw) > tool.max_bytes:
                    raise ToolRefused(f"the answer is over {tool.max_bytes} bytes", code=RESULT_TOO_LARGE)
            return response.status_code, response.headers.get("content-type", ""), raw
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol):
        raise ToolRefused(f"{tool.host} cannot be reached", code=UNREACHABLE) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as fault:
        raise _interrupted(tool, fault) from None


def _interrupted(tool: HttpTool, fault: Exception) -> ToolRefused:
    what = f"{tool.host} did not answer in full ({type(fault).__name__})"
    if tool.method == "GET":
        return ToolRefused(what, code=TIMEOUT if isinstance(fault, TimeoutError) else UNREACHABLE)
    return ToolRefused(f"{what}: the request may have been acted on", code=OUTCOME_UNKNOWN)


def _decoded(content_type: str, raw: bytes) -> Any:
    if "json" in content_type.lower():
        try:
            return orjson.loads(raw)
        except orjson.JSONDecodeError:
            raise ToolRefused("the answer says that it is JSON and is not", code=MALFORMED_RESULT) from None
    return raw.decode(errors="replace")


def _fits(value: Any, parameter: Parameter) -> bool:
    if not isinstance(value, _TYPES[parameter.type]) or (isinstance(value, bool) and parameter.type != "boolean"):
        return False
    if isinstance(value, str):
        return value in parameter.enum if parameter.enum else len(value) <= parameter.max_length
    return True


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _authority(host: str, url: str) -> str:
    """`host:port`, with the scheme's port when there is none."""
    parts = urlsplit(f"//{host}")
    try:
        port = parts.port
    except ValueError:
        return ""
    return f"{(parts.hostname or '').lower()}:{port or (443 if url.startswith('https:') else 80)}"


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    import ssl

    return ssl.create_default_context()
