"""EC2's metadata paths on the node, so that spot handlers written for it work unchanged.

`GET /latest/meta-data/spot/instance-action` is 404, or `{"action": "terminate", "time": …}` of the earliest
notice; below `/leases/{lease}` the same for one. `PUT /latest/api/token` answers: IMDSv2 clients ask first.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from aiohttp import web

from fallow.agent.journal import Held

TOKEN = "fallow"
ACTION = "/latest/meta-data/spot/instance-action"
TERMINATION = "/latest/meta-data/spot/termination-time"


def metadata_app(held: Callable[[], Mapping[str, Held]]) -> web.Application:
    """Return the application that tells what `held` says now."""

    def deadline(request: web.Request) -> str:
        only = request.match_info.get("lease")
        ends = [
            lease.reclaim_at_us
            for lease in held().values()
            if lease.reclaim_at_us is not None and only in (None, lease.id)
        ]
        if not ends:
            raise web.HTTPNotFound
        return datetime.fromtimestamp(min(ends) // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    async def action(request: web.Request) -> web.Response:
        return web.json_response({"action": "terminate", "time": deadline(request)})

    async def termination(request: web.Request) -> web.Response:
        return web.Response(text=deadline(request))

    async def token(request: web.Request) -> web.Response:
        return web.Response(text=TOKEN)

    app = web.Application()
    for prefix in ("", "/leases/{lease}"):
        app.router.add_get(prefix + ACTION, action)
        app.router.add_get(prefix + TERMINATION, termination)
    app.router.add_put("/latest/api/token", token)
    return app
