"""yt-dlp's process is shut in, in fact and not by its options; and nobody serves where it cannot be."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from origin import ORIGIN_HOST, Origin

from scanner import errors
from scanner.fetching import page
from scanner.fetching.fetch import fetch
from scanner.fetching.page_walls import PageReport, require_walls, try_walls
from scanner.settings import Settings
from scanner.walls import seccomp

FORBIDDING = Path(__file__).with_name("forbidding.py")
DOOR = "http://laescan:secret@127.0.0.1:9"
LOOK_AROUND = """
import ctypes, json, os, shutil, socket, stat, sys
from scanner.fetching import extractor
_, listener, walls = extractor.shut_in()
OTHERS = {"ffmpeg", "ffprobe", "curl", "wget", "aria2c", "rtmpdump", "sh", "bash"}
found = {"walls": walls, "sockets": [], "programs": []}
for folder, names, files in os.walk("/", onerror=lambda error: None):
    for name in files:
        path = os.path.join(folder, name)
        mode = os.lstat(path).st_mode
        found["sockets"] += [path] * stat.S_ISSOCK(mode)
        found["programs"] += [path] * (name in OTHERS)
found["which"] = [shutil.which(name, path="/usr/bin:/bin:/usr/local/bin") for name in sorted(OTHERS)]

def attempt(what):
    try:
        what()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "through"

outside, parent = sys.argv[2], int(sys.argv[3])
found["tries"] = {
    "read a file of another job": attempt(lambda: open(outside, "rb")),
    "write into the libraries": attempt(lambda: open(os.path.join(os.path.dirname(os.__file__), "left"), "w")),
    "write into the root": attempt(lambda: open("/left", "w")),
    "start a program": attempt(lambda: os.execv(sys.executable, ["python"])),
    "start it from a copy": attempt(lambda: os.execv("copy", ["copy"])),
    "kill the parent": attempt(lambda: os.kill(parent, 0)),
    "look at the parent": attempt(lambda: open(f"/proc/{parent}/environ", "rb")),
    "reach the machine by vsock": attempt(lambda: socket.socket(40, socket.SOCK_STREAM)),
    "ask the kernel by netlink": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "craft packets": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "make another user namespace": attempt(lambda: extractor.kernel.call("unshare", 0x10000000)),
    "mount": attempt(lambda: extractor.kernel.call("mount", b"none", b"/", b"tmpfs", None, None)),
    "trace": attempt(lambda: extractor.kernel.call("ptrace", 16, parent, 0, 0)),
    "an abstract socket": attempt(lambda: socket.socket(socket.AF_UNIX).connect("\\0laescan-page-test")),
    "the service's own socket": attempt(lambda: socket.socket(socket.AF_UNIX).connect(outside + ".sock")),
    "the internet": attempt(lambda: socket.create_connection(("192.0.2.1", 80), timeout=1)),
    "a link out of its folder": attempt(lambda: os.symlink(outside, "link")),
    "a second name": attempt(lambda: os.link("copy", "second")),
    "a pipe to wait on": attempt(lambda: os.mkfifo("pipe")),
    "folders without end": attempt(lambda: os.mkdir("folder")),
    "a folder that we could not empty": attempt(lambda: os.chmod(".", 0)),
    "the same by an access list": attempt(lambda: os.setxattr(".", "user.x", b"")),
    "live longer than we": attempt(lambda: extractor.kernel._prctl(1, 0)),
    "a datagram": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53))),
}
print(json.dumps(found))
"""


@pytest.fixture
def forbidden(monkeypatch):
    """The child on a kernel that forbids namespaces."""
    before = (
        f"import sys; sys.path.append({str(FORBIDDING.parent)!r}); import forbidding; forbidding.forbid_namespaces(); "
    )
    monkeypatch.setattr(page, "_LAUNCH", before + page._LAUNCH)


@pytest.fixture(scope="module")
def inside(tmp_path_factory):
    """What a broken-into yt-dlp sees and can do, from a child that was told to look around instead."""
    tmp_path = tmp_path_factory.mktemp("i")
    (tmp_path / "work").mkdir()
    (tmp_path / "other").write_bytes(b"of another job")
    (tmp_path / "work" / "copy").write_bytes(Path(sys.executable).read_bytes()[:100_000])
    (tmp_path / "work" / "copy").chmod(0o755)
    with socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as ours:
        for one, name in ((abstract, "\0laescan-page-test"), (ours, str(tmp_path / "other.sock"))):
            one.bind(name)
            one.listen()
        root = Path(page.__file__).parents[2]
        launch = f"import sys; sys.path.append(sys.argv[1])\n{LOOK_AROUND}"
        command = (sys.executable, "-I", "-B", "-c", launch, str(root), str(tmp_path / "other"), str(os.getpid()))
        done = subprocess.run(
            command, cwd=tmp_path / "work", capture_output=True, check=True, env={"PATH": "/nonexistent"}
        )
    return json.loads(done.stdout)


def test_no_way_out_of_the_page_s_process_is_open(inside):
    assert inside["walls"] == {"network": True, "files": True, "filter": True}
    assert {name for name, outcome in inside["tries"].items() if outcome == "through"} == set()
    assert len(inside["tries"]) >= 12


def test_there_is_no_other_program_and_no_socket_in_its_view(inside):
    assert inside["programs"] == []
    assert inside["which"] == [None] * 8
    assert inside["sockets"] == []


def test_the_self_test_finds_what_holds():
    report = asyncio.run(try_walls(Settings()))
    assert report.ok
    assert set(report.walls.values()) == set(report.held.values()) == {True}
    assert "yt-dlp's process tried to connect past the proxy: stopped" in report.words
    require_walls(Settings())


def test_the_self_test_finds_what_does_not_hold(forbidden):
    report = asyncio.run(try_walls(Settings()))
    assert not report.ok
    assert not report.held["network"]
    assert "yt-dlp's process tried to connect past the proxy: GOT THROUGH" in report.words
    assert report.held["programs"]  # the filter needs no namespace


def test_a_proxy_that_is_the_only_door_stands_for_the_namespace_and_is_named(forbidden):
    report = asyncio.run(try_walls(Settings(egress_proxy=DOOR)))
    assert report.ok
    assert "LAESCAN_EGRESS_PROXY" in report.words[-1]
    require_walls(Settings(egress_proxy=DOOR))


def test_a_service_starts_without_walls_only_where_somebody_says_so(forbidden):
    with pytest.raises(errors.NoJail, match="LAESCAN_REQUIRE_JAIL=false"):
        require_walls(Settings())
    require_walls(Settings(require_jail=False))


def test_a_child_that_does_not_start_says_why(monkeypatch):
    monkeypatch.setattr(page, "_LAUNCH", "import nowhere")
    with pytest.raises(errors.NoJail, match="nowhere"):
        asyncio.run(try_walls(Settings()))


def test_with_neither_a_page_is_refused_and_a_picture_is_not(forbidden, tmp_path):
    origin = Origin()
    body = b"<!doctype html><html><body><video src='/v.mp4'></video></body></html>"
    url = origin.answer("/page", body, Content_Type="text/html")
    settings = Settings(allow_networks=(f"{ORIGIN_HOST}/32",))
    with pytest.raises(errors.NoJail, match="LAESCAN_EGRESS_PROXY"):
        asyncio.run(fetch(url, folder=tmp_path, settings=settings))
    origin.close()
    assert [path for path, _ in origin.requests] == ["/page"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_with_neither_no_service_starts(tmp_path, command):
    environ = {**os.environ, "LAESCAN_STATE": str(tmp_path)}
    words = [sys.executable, str(FORBIDDING), sys.executable, "-m", "scanner.cli", command]
    done = subprocess.run(words, env=environ, cwd=FORBIDDING.parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "only door (LAESCAN_EGRESS_PROXY)" in done.stderr


def test_the_report_of_an_open_machine_is_not_ok():
    open_everywhere = dict.fromkeys(("network", "files", "filter", "programs"), False)
    assert not PageReport(open_everywhere, open_everywhere).ok


def test_the_filter_of_pages_is_known_on_both_machines():
    for machine in ("x86_64", "aarch64"):
        program = seccomp.page_filter(machine)
        assert program is not None
        assert int.from_bytes(program[-4:], "little") == seccomp._ALLOW
    assert seccomp.page_filter("riscv64") is None
