"""Is the service alive, is it ready, what has it done: for supervisors, balancers and Prometheus."""

from aiohttp import web

from api.bodies import answer
from api.messages import Health
from api.service import SERVICE


async def healthz(_request: web.Request) -> web.Response:
    """GET /healthz: this process answers. Redis being away is no reason to restart it."""
    return answer(Health(status="ok", checks={"api": "ok"}))


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: Redis answers and an engine has said who it is; 503 until then."""
    service = request.app[SERVICE]
    await service.redis.ping()
    model = await service.cache.model()
    checks = {"redis": "ok", "engine": "no engine has come up yet" if model is None else model.model_id}
    if model is None:
        headers = {"Retry-After": "2"}
        return answer(Health(status="unavailable", checks=checks), status=503, headers=headers)
    return answer(Health(status="ok", checks=checks))


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics, in Prometheus's text format."""
    body = await request.app[SERVICE].metrics.render()
    return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
