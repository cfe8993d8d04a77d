"""What the images and manifests name exists, and what they promise holds: settings, commands, ports, users, walls.

Images are built and run by docker/check.sh, which needs buildah and podman; here everything that can be read is read.
"""

import ctypes
import ctypes.util
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import check_jsonschema
import jsonschema_rs
import pytest
import yaml

from api.access import refuse_to_expose
from api.routes import ENDPOINTS
from scanner.bulk.shards import QUEUE as SHARDS
from scanner.cli import _parser
from scanner.receipts import Signer
from scanner.service.ledger import QUEUES
from scanner.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent
DOCKER = ROOT / "docker"
BASE = DOCKER / "kubernetes" / "base"
DOCKERFILE = (DOCKER / "Dockerfile").read_text("utf-8")
IGNORED = (ROOT / ".dockerignore").read_text("utf-8").split("\n")
SECRETS = {"REDIS_PASSWORD": "r3dis", "EGRESS_PASSWORD": "d00r"}
USER = "10001"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def interpolated(text):
    """What compose makes of ${NAME}, ${NAME:-default}, ${NAME:?words} and $$."""

    def value(found):
        name, default = found[1], (found[2] or "")
        return SECRETS.get(name, default[2:] if default.startswith(":-") else "")

    return re.sub(r"\$\{(\w+)(:[-?][^}]*)?\}", value, text).replace("$$", "$")


COMPOSE = yaml.safe_load(interpolated((DOCKER / "compose.yaml").read_text("utf-8")))
GPU = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text("utf-8"))
SERVICES = COMPOSE["services"]
OBJECTS = [o for path in sorted(BASE.glob("*.yaml")) for o in yaml.safe_load_all(path.read_text("utf-8"))]
KUSTOMIZATION = next(o for o in OBJECTS if o["kind"] == "Kustomization")
PODS = {
    o["metadata"]["name"]: o["spec"]["template"]["spec"] for o in OBJECTS if o["kind"] in {"Deployment", "StatefulSet"}
}
CONTAINERS = {
    f"{name}/{c['name']}": c for name, pod in PODS.items() for c in [*pod["containers"], *pod.get("initContainers", [])]
}
OURS = {name: c for name, c in CONTAINERS.items() if c["image"].startswith("laescan-")}


def stages():
    """name -> (what it is made from, its lines)."""
    parts = re.split(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, flags=re.MULTILINE)[1:]
    return {name: (source, body) for source, name, body in zip(*(parts[i::3] for i in range(3)), strict=True)}


IMAGES = {name: body for name, (_, body) in stages().items() if "ENTRYPOINT" in body}


def test_one_file_makes_the_three_images_that_the_manifests_name():
    named = {c["image"].partition(":")[0] for c in [*OURS.values(), *SERVICES.values(), *GPU["services"].values()]}
    assert {f"laescan-{name}" for name in IMAGES} == {name for name in named if name.startswith("laescan-")}
    assert {s["build"]["target"] for s in [*SERVICES.values(), *GPU["services"].values()] if "build" in s} <= set(
        IMAGES
    )
    assert all(f"laescan-{s['build']['target']}:" in s["image"] for s in SERVICES.values() if "build" in s)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_not_root_has_a_pulse_and_buries_its_dead(image):
    assert f"USER {USER}:{USER}" in IMAGES[image]
    assert f"--uid {USER} " in DOCKERFILE
    assert "HEALTHCHECK" in IMAGES[image]
    assert 'ENTRYPOINT ["tini", "--"]' in IMAGES[image]
    assert "RUN" not in IMAGES[image].split(), "what is shipped is copied, not made"


def test_nothing_floats():
    assert re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE) == ["debian:12-slim"]
    assert {source for source, _ in stages().values()} - set(stages()) == {"${BASE}"}
    used = [c["image"] for c in [*SERVICES.values(), *GPU["services"].values(), *CONTAINERS.values()]]
    tags = {entry["name"]: entry["newTag"] for entry in KUSTOMIZATION["images"]}
    for image in used:
        name, _, tag = image.partition(":")
        assert (tag or tags[name]) not in {"", "latest"}
        assert not name.startswith("laescan-") or (tag or tags[name]) == VERSION
    installs = re.findall(r"(?:\$PIP|pip install)(.*)", DOCKERFILE)
    assert len(installs) == 7
    assert all("--require-hashes" in line or "--no-deps --no-index" in line for line in installs)


def test_the_context_has_what_the_wheel_is_made_of_and_no_secrets():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]["packages"]
    assert {
        f"!{name}" for name in [*packages, "pyproject.toml", "README.md", "LICENSE", "NOTICE", "docker/locks"]
    } <= set(IGNORED)
    assert IGNORED[1] == "*"
    assert "docker/.env" in (ROOT / ".gitignore").read_text("utf-8").split("\n")


# ---------------------------------------------------------------- settings and commands

TEXTS = [
    path for path in DOCKER.rglob("*") if path.suffix in {".yaml", ".sh", ""} and path.is_file() and path.name != ".env"
]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_setting_that_is_named_exists(path):
    named = set(re.findall(rf"{PREFIX}([A-Z_]+[A-Z])\b(?!_)", path.read_text("utf-8")))
    assert {name.lower() for name in named} <= set(Settings.__struct_fields__)


def environment(service):
    """Null is an empty text, as for compose."""
    return {name: str(value or "") for name, value in service.get("environment", {}).items() if name.startswith(PREFIX)}


@pytest.mark.parametrize("name", [n for n, s in SERVICES.items() if s["image"].startswith("laescan-")])
def test_compose_gives_settings_that_are_taken(name):
    settings = Settings.from_env(environment(SERVICES[name]))
    for url in filter(None, (settings.redis_url, settings.cache_url, settings.egress_proxy)):
        assert urlsplit(url).hostname in SERVICES
    if name == "api":
        refuse_to_expose(settings)
    if name == "worker":
        assert settings.egress_proxy == Settings.from_env(environment(SERVICES["door"])).egress_proxy


def test_kubernetes_gives_settings_that_are_taken():
    literals = dict(line.split("=", 1) for line in KUSTOMIZATION["configMapGenerator"][0]["literals"])
    secret = subprocess.run([DOCKER / "kubernetes" / "secret.sh"], capture_output=True, text=True, check=True).stdout
    values = next(yaml.safe_load_all(secret))["stringData"]
    hosts = {o["metadata"]["name"]: o["spec"]["ports"][0]["port"] for o in OBJECTS if o["kind"] == "Service"}
    for container in CONTAINERS.values():
        given = {} if "envFrom" not in container else dict(literals)
        for entry in container.get("env", []):
            given[entry["name"]] = (
                entry["value"] if "value" in entry else values[entry["valueFrom"]["secretKeyRef"]["key"]]
            )
        settings = Settings.from_env({name: text for name, text in given.items() if name.startswith(PREFIX)})
        for url in filter(None, (settings.redis_url, settings.cache_url, settings.egress_proxy)):
            assert hosts[urlsplit(url).hostname] == urlsplit(url).port
        if "api" in container["args"]:
            refuse_to_expose(settings)


def commands():
    for name, service in SERVICES.items():
        if service["image"].startswith("laescan-") and "command" in service:
            yield f"compose {name}", service["command"]
            if "healthcheck" in service and service["healthcheck"]["test"][1] == "laescan":
                yield f"compose {name} health", service["healthcheck"]["test"][1:]
    for name, container in OURS.items():
        yield name, container["args"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if "exec" in container.get(probe, {}):
                yield f"{name} {probe}", container[probe]["exec"]["command"]
    for name, body in IMAGES.items():
        yield f"image {name}", json.loads(re.findall(r"^CMD (\[.*\])", body, re.MULTILINE)[0])
        if found := re.findall(r'CMD (\["laescan".*\])', body):
            yield f"image {name} health", json.loads(found[0])


@pytest.mark.parametrize(("where", "command"), list(commands()))
def test_every_command_exists(where, command):
    if command[:2] == ["python", "-m"]:
        source = Path(importlib.util.find_spec(f"{command[2]}.__main__" if command[2] == "api" else command[2]).origin)
        assert '__name__ == "__main__"' in source.read_text("utf-8")
    else:
        assert command[0] == "laescan"
        assert _parser().parse_args(command[1:]).command == command[1], where


def test_ports_and_paths_are_those_of_the_program():
    port, paths = Settings().api_port, {e.path for e in ENDPOINTS if e.scope is None}
    assert f"EXPOSE {port}\n" in IMAGES["api"]
    assert f"http://127.0.0.1:{port}/healthz" in IMAGES["api"]
    assert SERVICES["api"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    api = OURS["laescan-api/api"]
    assert api["ports"][0]["containerPort"] == port
    for probe in (api["livenessProbe"], api["readinessProbe"]):
        assert probe["httpGet"]["path"] in paths
        assert {"name": "Host", "value": "localhost"} in probe["httpGet"]["httpHeaders"]
    door = urlsplit(environment(SERVICES["door"])["LAESCAN_EGRESS_PROXY"]).port
    assert str(door) in SERVICES["door"]["healthcheck"]["test"][-1]
    assert OURS["laescan-door/door"]["ports"][0]["containerPort"] == door


def test_every_api_signs_receipts_with_one_key_that_outlives_it(tmp_path):
    path = Settings.from_env(environment(SERVICES["api"])).receipt_key
    ours = {volume.partition(":")[2]: volume.partition(":")[0] for volume in SERVICES["api"]["volumes"]}
    assert ours[str(Path(path).parent)] in COMPOSE["volumes"]
    assert str(Path(path).parent) in re.findall(r"install -d -o laescan -g laescan -m 0700 (.*)", DOCKERFILE)[0].split()

    pod = PODS["laescan-api"]
    (api,) = pod["containers"]
    given = Path(next(one["value"] for one in api["env"] if one["name"] == "LAESCAN_RECEIPT_KEY"))
    mount = next(one for one in api["volumeMounts"] if one["mountPath"] == str(given.parent))
    volume = next(one["secret"] for one in pod["volumes"] if one["name"] == mount["name"])
    assert volume["defaultMode"] == 0o440, "the group is fsGroup; a key that everybody may read is refused"
    made = subprocess.run([DOCKER / "kubernetes" / "secret.sh"], capture_output=True, text=True, check=True).stdout
    secrets = {one["metadata"]["name"]: one for one in yaml.safe_load_all(made)}
    assert secrets[volume["secretName"]]["immutable"], "who has a receipt was told this key"
    key = tmp_path / "receipt.key"
    key.touch(volume["defaultMode"] | 0o200)
    key.write_text(secrets[volume["secretName"]]["stringData"][given.name])
    assert Signer(Settings(receipt_key=str(key))).public_pem()


# ---------------------------------------------------------------- compose


def test_compose_files_fit_their_schema():
    vendored = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    fits = jsonschema_rs.validator_for(json.loads(vendored.read_text("utf-8")))
    fits.validate(COMPOSE)
    fits.validate(GPU)
    assert set(GPU["services"]) <= set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_locked_down(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(service)
    assert "mem_limit" in service
    assert service["image"].startswith("laescan-") or service["user"] != "0:0"
    assert "healthcheck" in service or service["image"].startswith("laescan-")


def test_only_the_door_joins_the_fetchers_to_the_outside():
    outside = {name for name, net in COMPOSE["networks"].items() if not (net or {}).get("internal")}
    assert outside == {"front", "outside"}
    of = {name: set(service.get("networks", [])) for name, service in SERVICES.items()}
    assert {name for name, nets in of.items() if nets & outside} == {"door", "api"}
    assert of["worker"] == {"queue", "exit"}
    assert of["door"] == {"exit", "outside"}, "the door must not reach the queue"
    assert "exit" not in of["api"]
    assert SERVICES["engine"]["network_mode"] == "none"
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"api"}


def test_engine_and_workers_share_a_socket_and_workers_and_api_the_spool():
    volumes = {name: {v.split(":")[0]: v.split(":")[1] for v in s.get("volumes", [])} for name, s in SERVICES.items()}
    socket = Path(environment(SERVICES["engine"])["LAESCAN_ENGINE_SOCKET"])
    assert volumes["engine"]["engine"] == volumes["worker"]["engine"] == str(socket.parent)
    assert volumes["api"]["spool"] == volumes["worker"]["spool"] == environment(SERVICES["api"])["LAESCAN_SPOOL"]
    made = re.findall(r"install -d -o laescan -g laescan -m 0700 (.*)", DOCKERFILE)[0].split()
    assert {volumes["engine"]["engine"], volumes["api"]["spool"]} <= set(made), (
        "a new volume takes its owner from the image"
    )


# ---------------------------------------------------------------- kubernetes


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_locked_down(name):
    pod = PODS[name]
    assert pod["enableServiceLinks"] is False  # LAESCAN_API_PORT=tcp://... would be a bad setting
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
        if container["image"].startswith("laescan-"):
            assert str(pod["securityContext"]["runAsUser"]) == USER
        mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounts <= {volume["name"] for volume in pod.get("volumes", [])} | {"data"}


def test_only_what_decodes_has_the_profile_of_the_jail():
    jailed = {name for name, c in CONTAINERS.items() if c["securityContext"].get("seccompProfile")}
    assert jailed == {"laescan-worker/worker", "laescan-bulk-worker/bulk-worker"}
    assert {"seccomp=./seccomp.json"} <= set(SERVICES["worker"]["security_opt"])


def test_scaling_counts_queues_that_exist_and_scales_what_exists():
    scaled = [o for o in OBJECTS if o["kind"] == "ScaledObject"]
    lists = {trigger["metadata"]["listName"] for o in scaled for trigger in o["spec"]["triggers"]}
    assert lists == {f"rq:queue:{name}" for name in (*QUEUES, SHARDS)}
    assert {o["spec"]["scaleTargetRef"]["name"] for o in scaled} <= set(PODS)


def test_only_the_door_has_a_way_out():
    policies = {o["metadata"]["name"]: o["spec"] for o in OBJECTS if o["kind"] == "NetworkPolicy"}
    assert policies["laescan-nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    open_ = {
        name
        for name, spec in policies.items()
        for rule in spec.get("egress", [])
        for to in rule["to"]
        if "ipBlock" in to
    }
    assert open_ == {"laescan-door"}
    (door,) = policies["laescan-door"]["egress"]
    assert [port["port"] for port in door["ports"]] == list(Settings().allow_ports)
    labels = {
        o["metadata"]["name"]: o["spec"]["template"]["metadata"]["labels"] for o in OBJECTS if o["kind"] == "Deployment"
    }
    fetchers = {name for name, of in labels.items() if of.get("laescan/fetches") == "yes"}
    assert fetchers == {pod for pod, spec in PODS.items() if "egress-proxy" in str(spec)} - {"laescan-door"}


# ---------------------------------------------------------------- the jail under the profile

CONFINED = """
import ctypes, json, sys
allow, fail = 0x7FFF0000, 0x00050000 | 1
lib = ctypes.CDLL(sys.argv[1])
lib.seccomp_init.restype, lib.seccomp_init.argtypes = ctypes.c_void_p, (ctypes.c_uint32,)
lib.seccomp_rule_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint)
lib.seccomp_load.argtypes = (ctypes.c_void_p,)
context = lib.seccomp_init(allow)
known = 0
for name in json.load(open(sys.argv[2]))["syscalls"][0]["names"] + sys.argv[3:]:
    number = lib.seccomp_syscall_resolve_name(name.encode())
    if number != -1:
        known += lib.seccomp_rule_add(context, fail, number, 0) == 0
assert known > 30 and lib.seccomp_load(context) == 0
from scanner.decoding.jail import Jail
from scanner.settings import Settings
with Jail(Settings()) as jail:
    walls = jail.report().walls
    print(*(name for name in walls.__struct_fields__ if getattr(walls, name)))
"""


@pytest.mark.skipif(not ctypes.util.find_library("seccomp"), reason="needs libseccomp2, which Debian's apt brings")
@pytest.mark.parametrize("denied", [(), ("unshare", "mount")])
def test_the_jail_has_all_walls_under_our_profile_and_holds_with_one_that_forbids_namespaces(denied):
    command = (sys.executable, "-c", CONFINED, ctypes.util.find_library("seccomp"), DOCKER / "seccomp.json", *denied)
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    inner = {"network_namespace", "empty_root", "process_namespace"}  # as the compose file and the manifests say
    assert set(done.stdout.split()) >= {"seccomp"}
    assert set(done.stdout.split()) & inner == (set() if denied else inner)
