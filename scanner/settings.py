"""Every knob, in one frozen value: built once from the environment, then passed in.

In: `LAESCAN_*` variables. Out: `Settings`.
Nothing is read at import.
An unknown `LAESCAN_*` name is an error, because a typo that is silently ignored is worse.
"""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

PREFIX = "LAESCAN_"
_JUDGING = ("max_frames", "max_faces", "min_face_px", "max_decoded_bytes")
"""What decides which faces and frames are seen, beside the model."""

Positive = Annotated[int, Meta(gt=0)]
PositiveSeconds = Annotated[float, Meta(gt=0, le=86_400)]
Port = Annotated[int, Meta(ge=1, le=65_535)]


class SettingsError(ValueError):
    """A `LAESCAN_*` variable is unknown or its value does not fit."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits and paths; units are in the names. Defaults are the documented limits."""

    max_image_bytes: Positive = 50_000_000
    """Largest picture file."""
    max_image_pixels: Positive = 50_000_000
    """Largest picture or video frame, width x height."""
    max_video_bytes: Positive = 500_000_000
    """Largest video file."""
    max_video_duration_s: PositiveSeconds = 1800.0
    """Longest video."""
    max_streams: Positive = 8
    """Most streams in a container."""
    max_frames: Annotated[int, Meta(gt=0, le=512)] = 16
    """Most frames scored per video or animation."""
    max_faces: Annotated[int, Meta(gt=0, le=256)] = 32
    """Most faces scored per frame."""
    min_face_px: Annotated[int, Meta(ge=16)] = 40
    """Smallest face looked for, in pixels of the frame."""
    max_url_bytes: Positive = 8_192
    """Longest URL."""
    max_redirects: Annotated[int, Meta(ge=0)] = 5
    """Most redirects followed; each hop is checked again."""
    connect_timeout_s: PositiveSeconds = 5.0
    """Time to connect."""
    first_byte_timeout_s: PositiveSeconds = 10.0
    """Time to the first byte of the body."""
    min_rate_bytes_per_s: Positive = 16_000
    """Slowest body accepted, averaged over 10 s."""
    image_timeout_s: PositiveSeconds = 60.0
    """Total time to fetch a picture."""
    video_timeout_s: PositiveSeconds = 300.0
    """Total time to fetch a video."""
    decode_timeout_s: PositiveSeconds = 30.0
    """Wall clock of one jailed decode."""
    decode_memory_bytes: Positive = 2_000_000_000
    """Address space of one jailed decode."""
    max_decoded_bytes: Positive = 400_000_000
    """Most pixels one decode may hand over, in bytes; frames that do not fit (16 of 3840x2160 do) are shrunk."""
    allow_networks: tuple[str, ...] = ()
    """Networks that may be reached although not public, e.g. 192.168.7.0/24; metadata services stay blocked."""
    allow_ports: tuple[Port, ...] = (80, 443)
    """Ports that may be reached; ports in `allow_networks` are not restricted."""
    max_connections: Positive = 64
    """Most connections one video-page job may open through the egress proxy."""
    egress_proxy: str = ""
    """The only way out of an internal-only network: http://laescan:PASSWORD@HOST:PORT; empty = dial ourselves."""
    require_jail: bool = True
    """Refuse to decode when this machine cannot isolate the decoder (namespaces forbidden)."""
    user_agent: str = "laescan/0.1 (+https://github.com/laescan/laescan)"
    """What we call ourselves to web servers; put a contact in."""
    respect_noai: bool = False
    """Do not scan what its server marks with X-Robots-Tag: noai or noimageai."""
    weights: str = ""
    """Path of another checkpoint than the shipped one."""
    regions: bool = False
    """Look for inpainted parts of whole pictures, too (not of videos); an engine goes by its own setting."""
    region_weights: str = ""
    """Path of another checkpoint for whole pictures than the shipped one."""
    threads: Annotated[int, Meta(ge=0)] = 0
    """Compute threads of the engine; 0 = one per core, waiting passively."""
    engines: Literal["auto", "ready", "off"] = "auto"
    """TensorRT engines on NVIDIA GPUs: auto = build what is missing, in the background; ready = use what fits; off."""
    engines_folder: str = ""
    """Folder of built engines, which are code: for us alone; empty = `engines` in the state folder."""
    engine_socket: str = ""
    """Socket of the engine; empty = `engine.sock` in the state folder."""
    engine_timeout_s: PositiveSeconds = 120.0
    """Longest wait for the engine's answer, its queue and its restarts included."""
    engine_max_queued: Annotated[int, Meta(ge=1, le=4096)] = 256
    """Most requests waiting in the engine; those who come later ask again until their time is up."""
    engine_drain_s: PositiveSeconds = 30.0
    """Time that a stopping engine takes to answer what waits."""
    api_host: str = "127.0.0.1"
    """Address that the API listens on; beyond loopback only with `access` set."""
    api_port: Port = 8117
    """Port that the API listens on."""
    api_hosts: tuple[str, ...] = ()
    """Host names, beside loopback's, under which the API may be called; any other Host is refused."""
    access: Literal["auto", "token", "open"] = "auto"
    """Who may call: auto = this machine without a token, nobody else; token = only with one; open = everyone."""
    extension_ids: tuple[str, ...] = ("faamboekkmeaklkmgfifkmoenfajpmck",)
    """Browser extensions that may call the API without a token: ids as in chrome-extension://ID."""
    submits_per_min: Positive = 60
    """Scans that one token may submit per minute."""
    lookups_per_min: Positive = 600
    """Other requests that one token may make per minute."""
    batches_per_min: Positive = 6
    """Batches that one token may submit per minute."""
    max_queued: Positive = 2_000
    """Scans waiting in the interactive queue beyond which new ones are refused for a while."""
    max_queued_bulk: Positive = 100_000
    """Scans waiting in the bulk queue beyond which new ones are refused for a while."""
    max_batch_urls: Annotated[int, Meta(gt=0, le=10_000)] = 10_000
    """Most URLs in one batch."""
    redis_url: str = ""
    """Redis of queue and ledger: redis://host:6379/0, unix:///run/redis.sock; empty = `laescan serve` starts one."""
    cache_url: str = ""
    """Redis of remembered verdicts, which may evict; empty = the one of queue and ledger, which may not."""
    state: str = ""
    """Folder of what must survive a restart; empty = $XDG_STATE_HOME/laescan, ~/.local/state/laescan without it."""
    receipt_key: str = ""
    """Ed25519 key (PEM) that signs receipts; empty = `receipt.key` in the state folder, made on first use."""
    artifact_ttl_s: PositiveSeconds = 3_600.0
    """How long the report and the overlay of a scan are kept."""
    max_artifact_bytes: Positive = 256_000_000
    """Most that those of all scans take in Redis, and never over a quarter of its maxmemory; the oldest go first."""
    drain_s: PositiveSeconds = 20.0
    """Time that a stopping worker takes to end the scan that it runs, before it gives it back."""
    spool: str = ""
    """Folder of uploads, shared by API and workers; empty = `spool` in the state folder."""
    workers: Annotated[int, Meta(ge=0, le=256)] = 0
    """Worker processes that `laescan serve` and `laescan worker` keep running; 0 = one per core, at least 2."""
    scan_timeout_s: PositiveSeconds = 900.0
    """Longest time that one attempt at a scan may take, from the first byte to the verdict."""
    outcome_ttl_s: PositiveSeconds = 86_400.0
    """How long the outcome of a scan can be asked for by its id."""
    feedback_ttl_s: Annotated[int, Meta(ge=1, le=31_536_000)] = 7_776_000
    """How long a report that a verdict is wrong is kept."""
    url_fresh_s: PositiveSeconds = 300.0
    """How long the verdict on a URL is given again without asking its server whether it changed."""
    near_labels: tuple[Literal["manipulated", "inconclusive", "authentic", "no_face"], ...] = (
        "manipulated",
        "inconclusive",
    )
    """Verdicts that a re-encoded copy of a picture may inherit until it is scanned itself; empty = none."""
    near_audit_share: Annotated[float, Meta(ge=0, le=1)] = 0.05
    """Share of inherited verdicts that a scan checks afterwards; the first two of every picture always are."""
    log_level: Literal["", "debug", "info", "warning", "error"] = ""
    """What is logged on stderr; empty = info by the parts of the service, warning by other commands."""

    def __post_init__(self) -> None:
        if self.egress_proxy:
            _check_door(self.egress_proxy)
        for network in self.allow_networks:
            try:
                ip_network(network)
            except ValueError as error:
                msg = f"allow_networks: {error}; write e.g. 192.168.7.0/24, several with commas"
                raise ValueError(msg) from error

    def judging(self) -> str:
        """What of these decides what is seen, where it is not as usual: ",max_frames=32"; "" as a rule.

        Behind a model_id it says who judged: verdicts and rows of one name stand for each other, others never do.
        """
        usual = Settings()
        changed = (name for name in _JUDGING if getattr(self, name) != getattr(usual, name))
        return "".join(f",{name}={getattr(self, name)}" for name in changed)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Settings":
        """Settings from `LAESCAN_*` variables, e.g. LAESCAN_MAX_FRAMES=32.

        Lists are comma-separated. Raises SettingsError for unknown names and bad values.
        """
        given = {k: v for k, v in environ.items() if k.startswith(PREFIX)}
        fields = {f.name: f for f in msgspec.structs.fields(cls)}
        values: dict[str, object] = {}
        for name, text in given.items():
            field = name.removeprefix(PREFIX).lower()
            if field not in fields:
                msg = f"unknown setting {name}; `laescan doctor` lists the settings"
                raise SettingsError(msg)
            is_list = isinstance(fields[field].default, tuple)
            values[field] = [part.strip() for part in text.split(",") if part.strip()] if is_list else text
        try:
            return msgspec.convert(values, cls, strict=False)
        except msgspec.ValidationError as error:
            msg = f"bad setting: {error}"
            raise SettingsError(msg) from error


def _check_door(url: str) -> None:
    """Raise ValueError, without the password in its words."""
    try:
        parts = urlsplit(url)
        complete = bool(parts.hostname and parts.port and parts.username == "laescan" and parts.password)
    except ValueError:
        complete = False
    if not complete or parts.scheme != "http":
        msg = "egress_proxy: write http://laescan:PASSWORD@HOST:PORT, as `python -m scanner.fetching.gateway` has it"
        raise ValueError(msg)
