"""The one place where exceptions become answers, and where every answer gets its request id."""

import asyncio

from aiohttp import web
from aiohttp.typedefs import Handler

from api.admit import STANDING
from api.call import REQUEST_ID
from api.codec import JSON, codec_for_answer
from api.errors import problem_of, retry_after
from api.rate_limits import RateLimited, Standing
from api.services import SERVICES
from auction.ids import random_id

REQUEST_ID_HEADER = "X-Request-Id"


@web.middleware
async def boundary(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Run a handler; answer whatever it raises as problem+json, or msgpack if that is accepted."""
    request[REQUEST_ID] = random_id("req")
    services = request.app[SERVICES]
    services.doorway.heard(request.protocol)
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    try:
        response = await handler(request)
    except web.HTTPSuccessful as success:
        response = success
    except Exception as error:
        if isinstance(error, ConnectionError) and request.transport is None:
            raise  # its client has gone: nobody's fault, and aiohttp lets it go
        response = _problem_response(request, error)
    if not response.prepared:
        response.headers[REQUEST_ID_HEADER] = request[REQUEST_ID]
        standing = request.get(STANDING)
        if standing is not None:
            response.headers.update(standing.headers)
    resource = request.match_info.route.resource
    # Whatever somebody makes up for a method or a path is one series, not many.
    name = "none" if resource is None else f"{request.method} {resource.canonical}"
    services.requests.observe(name, response.status, loop.time() - began_s)
    return response


def _problem_response(request: web.Request, error: Exception) -> web.Response:
    problem = problem_of(error, request[REQUEST_ID])
    codec = codec_for_answer(request.headers.get("Accept"), request.headers.get("Content-Type")) or JSON
    response = web.Response(status=problem.status, body=codec.encode(problem))
    response.headers["Content-Type"] = codec.problem_type
    if problem.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RateLimited):
        response.headers.update(Standing(error.policy, 0).headers)
    if problem.status in (429, 503):
        response.headers["Retry-After"] = str(retry_after(error))
    if isinstance(error, web.HTTPMethodNotAllowed):
        response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
    return response


async def drop_server_header(request: web.Request, response: web.StreamResponse) -> None:
    """Tell nobody which software answers."""
    response.headers.pop("Server", None)
