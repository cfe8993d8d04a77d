"""Is the service alive, is it ready, what has it done: for supervisors, balancers and Prometheus."""

from aiohttp import web
from redis.exceptions import RedisError

from api.bodies import answer
from api.messages import Health
from api.service import SERVICE


async def healthz(_request: web.Request) -> web.Response:
    """GET /healthz: this process answers. Redis being away is no reason to restart it."""
    return answer(Health(status="ok", checks={"api": "ok"}))


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: Redis answers and an engine has said who it is; 503 until then. The cache is no condition."""
    service = request.app[SERVICE]
    await service.redis.ping()
    checks = {"redis": "ok"}
    try:
        model_id = await service.lookups.model_id()
    except RedisError:
        if service.memory is service.redis:
            raise
        return answer(Health(status="ok", checks={**checks, "cache": "away; scans go on, what is known is not found"}))
    checks["engine"] = model_id or "no engine has come up yet"
    if model_id is None:
        headers = {"Retry-After": "2"}
        return answer(Health(status="unavailable", checks=checks), status=503, headers=headers)
    return answer(Health(status="ok", checks=checks))


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics, in Prometheus's text format."""
    body = await request.app[SERVICE].metrics.render()
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
