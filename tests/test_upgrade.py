"""A new checkpoint takes over: what the old one judged stays readable by its id, what is asked anew is scanned."""

import asyncio
import io
import json
from pathlib import Path

import models
import msgspec
from crew import Crew
from engines import EngineProcess
from service import serving

from scanner.cache.upkeep import inventory
from scanner.contract import Label, Verdict
from scanner.receipts import check, public_key
from scanner.settings import Settings

PORTRAIT = Path(__file__).parent / "media" / "fellow_1.jpg"
START_S = 120


class Service:
    """Redis and API stay; the engine and its worker are those of one checkpoint."""

    def __init__(self, crew, api):
        self.crew, self.api = crew, api

    def work_with(self, weights):
        """Stop who judged, start another; blocks until it says who it is. Out: its model_id."""
        self.crew.dismiss()
        if self.crew.engine.process.poll() is None:
            self.crew.engine.end()
        environ = {"LAESCAN_WEIGHTS": str(weights), "LAESCAN_THREADS": "1"}
        self.crew.engine = EngineProcess(self.crew.folder / "engine.sock", environ=environ)
        model_id = self.crew.engine.wait_until_it_answers().info.model_id
        self.crew.hire()
        return model_id

    async def judges(self, model_id):
        """Wait until the API knows."""
        async with asyncio.timeout(START_S):
            while (await self.api.ask("GET", "/readyz"))[1]["checks"].get("engine") != model_id:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async def upgrade(self, weights):
        model_id = await asyncio.to_thread(self.work_with, weights)
        await self.judges(model_id)
        return model_id

    async def submit(self):
        """Status and scan of the portrait, when it has ended."""
        status, scan, _ = await self.api.ask("POST", "/v1/scans", data={"file": io.BytesIO(PORTRAIT.read_bytes())})
        while scan["outcome"] is None:
            _, scan, _ = await self.api.ask("GET", f"/v1/scans/{scan['id']}?wait=10")
        return status, scan


def verdict_of(scan):
    return msgspec.convert(json.loads(json.dumps(scan["outcome"]["verdict"])), Verdict)


def test_old_verdicts_stay_readable_and_new_asks_are_scanned_by_the_new_model(tmp_path):
    old = models.random_checkpoint(tmp_path, seed=1, calibration=models.SURELY_AUTHENTIC, name="old")
    new = models.random_checkpoint(tmp_path, seed=2, calibration=models.SURELY_MANIPULATED, name="new")

    async def through(crew):
        settings = Settings(redis_url=crew.url, state=str(crew.folder))
        async with serving(settings) as api:
            service = Service(crew, api)
            first_model = await service.upgrade(old)
            status, first = await service.submit()
            assert (status, verdict_of(first).label, verdict_of(first).model.model_id) == (
                202,
                Label.AUTHENTIC,
                first_model,
            )
            status, again = await service.submit()
            assert (status, again["id"]) == (200, first["id"]), "the same model is not asked twice"

            second_model = await service.upgrade(new)
            assert second_model != first_model
            _, kept, _ = await api.ask("GET", f"/v1/scans/{first['id']}")
            assert verdict_of(kept) == verdict_of(first), "by its id it is what it was"
            _, found, _ = await api.ask("GET", f"/v1/verdicts?sha256={verdict_of(first).media.sha256}")
            assert found == {"verdicts": []}, "by its bytes the new model knows nothing yet"

            status, second = await service.submit()
            assert (status, verdict_of(second).label) == (202, Label.MANIPULATED)
            assert verdict_of(second).model.model_id == second_model
            assert second["id"] != first["id"]

            _, receipt, _ = await api.ask("GET", f"/v1/scans/{first['id']}/receipt")
            _, pem, _ = await api.ask("GET", "/v1/key")
            signed, _ = check(json.dumps(receipt).encode(), [public_key(pem)])
            assert signed.verdict.model.model_id == first_model, "and it can still be passed on, as the old model's"
            lying = await inventory(api.service.redis)
            assert (lying.verdicts, lying.model.model_id) == ({first_model: 1, second_model: 1}, second_model)

    with Crew(tmp_path) as crew:
        asyncio.run(through(crew))
