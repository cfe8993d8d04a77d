"""What the fuzzer feeds: each target takes bytes, and raises only when a promise of ours is broken.

    TARGETS   name -> (function, seeds): the seeds are whole, so that a mutation starts deep inside
    DOORS     the modules to watch for coverage

What is expected of bytes of strangers (a coded error) is caught by its class and by nothing wider: all else is a find.
"""

import asyncio
import contextlib
import hashlib
import ipaddress
import os
import socket
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import media
import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from iana import is_public
from origin import fake_getaddrinfo
from test_contract import OUTCOMES, VERDICT

from api import messages
from api.bodies import BATCH_BYTES
from api.scans import clean_url
from scanner import receipts
from scanner.bulk.columns import ListError
from scanner.bulk.dispatch import host_of
from scanner.bulk.journal import key_of
from scanner.bulk.links import links_in
from scanner.bulk.lists import FORMATS, open_list
from scanner.bulk.rows import Result, record_of, result_of
from scanner.cache import archive, gist, near, recall, urls, verdicts
from scanner.cache.fingerprint import THUMB_PX, Look, pack, unpack
from scanner.cache.validators import NO_VALIDATORS, Validators
from scanner.contract import VERDICT_VERSION, CacheInfo, Label, Outcome, ScanRequest, ScanRow, Verdict
from scanner.decoding import jpeg, picture, video
from scanner.decoding.decode import decode
from scanner.decoding.frames import Sheet, Wanted
from scanner.decoding.jail import Jail
from scanner.engine import wire
from scanner.errors import BadSource, DecoderFailed, OptedOut, ScanError, SourceFailed, UnsupportedMedia
from scanner.fetching.body import decoder
from scanner.fetching.egress import AddressPolicy
from scanner.fetching.fetch import parse_retry_after, parse_url, refuse_noai
from scanner.fetching.proxy import Budget, FilteringProxy
from scanner.fetching.tail import bytes_after_end
from scanner.formats import ALLOWED, HEAD_BYTES, looks_like_html, sniff
from scanner.service import ledger
from scanner.settings import Settings, SettingsError
from scanner.verdict import Calibration

SMALL = Settings(
    max_image_pixels=1_000_000, max_decoded_bytes=8_000_000, decode_timeout_s=10, decode_memory_bytes=1_500_000_000
)
WANTED = {
    "max_frames": 4,
    "max_pixels": SMALL.max_image_pixels,
    "max_decoded_bytes": SMALL.max_decoded_bytes,
    "max_duration_s": 1800.0,
    "max_streams": 8,
    "budget_s": 1e9,
}
Check = Callable[[bytes], None]


class Target(NamedTuple):
    """One way in."""

    check: Check
    seeds: Callable[[], list[bytes]]


# ---------------------------------------------------------------- media


@cache
def pictures() -> list[bytes]:
    stills = [media.picture(name) for name in ("jpeg", "png", "gif", "webp", "avif", "bmp", "heic")]
    moving = [media.animation(name, 3) for name in ("gif", "png", "webp", "avif")]
    dressed = [media.picture("png", icc_profile=media.swapped_profile()), media.webp_bomb(), media.gif_bomb(3, 65_535)]
    return [*stills, *moving, *dressed]


@cache
def clips() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        one = partial(media.clip, count=6, size=(64, 48))
        files = [one(Path(folder) / name) for name in ("a.mp4", "a.mkv", "a.ts")]
        files += [one(Path(folder) / "b.mp4", codec="mpeg4"), one(Path(folder) / "c.mkv", codec="mjpeg",
                  pixel_format="yuvj420p"), one(Path(folder) / "d.webm", codec="libvpx-vp9")]  # fmt: skip
        return [*(file.read_bytes() for file in files), media.referring(Path("/etc/passwd"))]


@contextlib.contextmanager
def in_memory(data: bytes):
    with os.fdopen(os.memfd_create("fuzz"), "w+b", buffering=0) as file:
        file.write(data)
        file.seek(0)
        yield file


def check_sniff(data: bytes) -> None:
    found = sniff(data)
    assert found is None or found in ALLOWED
    assert found == sniff(data[:HEAD_BYTES])
    assert looks_like_html(data) in {True, False}
    if data and found is not None:
        with in_memory(data) as file:
            assert 0 <= bytes_after_end(file, found.name) <= len(data)


def _by_module(data: bytes, kind: str) -> None:
    """As in the jail, but here: what comes out is a sheet whose frames lie in the payload, or a coded error."""
    found = sniff(data)
    if found is None or found.kind != kind:
        return
    module = picture if kind == "image" else video
    options = msgspec.to_builtins(Wanted(format=found.name, **WANTED))
    with in_memory(data) as source, in_memory(b"") as payload, contextlib.suppress(ScanError, MemoryError):
        if found.name == "jpeg":
            answer = jpeg.decode(source, payload, options)
            source.seek(0)
            assert not answer or msgspec.convert(answer, Sheet).frames
        sheet = msgspec.convert(module.decode(source, payload, options), Sheet)
        size = os.fstat(payload.fileno()).st_size
        assert size <= SMALL.max_decoded_bytes
        assert all(f.offset + 3 * f.width * f.height <= size and f.width * f.height > 0 for f in sheet.frames)
        assert len(sheet.frames) <= WANTED["max_frames"]
        assert sheet.width * sheet.height > 0


@cache
def prison() -> Jail:
    return Jail(SMALL).__enter__()  # dies with this process


def check_jail(data: bytes) -> None:
    """Through the real jail: never an uncoded error, and never a child that was killed by anything but its limits."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            decoded = decode(Path(file.name), jail=prison(), settings=SMALL)
        except DecoderFailed as error:
            if "stopped on this file" in str(error) or "no answer" in str(error):  # a bug of ours, not a limit
                raise
        except ScanError:
            pass
        else:
            assert decoded.frames
            assert all(frame.pixels.ndim == 3 for frame in decoded.frames)


# ---------------------------------------------------------------- addresses and HTTP

URLS = [
    "http://example.org/a.jpg?x=1#f", "https://user:pass@example.org:8443/", "http://[::ffff:127.0.0.1]:80/",
    "http://0x7f.1/", "http://2130706433/", "http://[fe80::1%25eth0]/", "http://xn--bcher-kva.example/",
    "http://bücher.example/ü", "http://①②⑦.⓪.⓪.①/", "HTTP://EXAMPLE.org", "http://a..b/", "http://[64:ff9b::1.2.3.4]/",
    "http://x/#__youtubedl_smuggle=%7B%7D", "http://xn--a/", "https://a%00b/", "http://h:99999/",
]  # fmt: skip


def check_url(data: bytes) -> None:
    """What one door takes every other takes, nothing secret is left in a name, and an address is what it is."""
    text = data.decode("utf-8", "surrogateescape")
    host_of(text)
    key_of(text)
    same = urls.canonical_url(text)
    taken = None
    with contextlib.suppress(BadSource):
        taken = clean_url(text, SMALL)
    try:
        url = parse_url(text, SMALL)
    except BadSource as error:
        if taken is not None:
            msg = f"the API takes what the scanner refuses: {error}"
            raise AssertionError(msg) from error
        return
    assert taken is not None or text.strip() != text  # the scanner is given what people paste, the API what they send
    assert url.scheme in {"http", "https"}
    assert url.host
    assert 0 < (url.port or 0) < 65_536
    assert (url.user, url.password) == (None, None)
    again = parse_url(str(url), SMALL)
    assert (again.host, again.port, again.raw_path_qs) == (url.host, url.port, url.raw_path_qs)
    assert urls.canonical_url(same) == same
    assert "@" not in same.partition("://")[2].partition("/")[0]
    with contextlib.suppress(OSError, UnicodeError, ValueError):
        for *_, address in socket.getaddrinfo(url.host, url.port, flags=socket.AI_NUMERICHOST):
            check_address(str(address[0]))


def check_address(text: str) -> None:
    refused = AddressPolicy().refusal(text, 443) is not None
    address = ipaddress.ip_address(text.partition("%")[0])
    assert refused is not is_public(address), text


def check_policy(data: bytes) -> None:
    """Sixteen or four bytes are an address, and the oracle knows it; other bytes are text, and refused at least."""
    policy = AddressPolicy()
    with contextlib.suppress(UnicodeDecodeError):
        policy.refusal(data.decode(), 80)
    for size, kind in ((4, ipaddress.IPv4Address), (16, ipaddress.IPv6Address)):
        if len(data) >= size:
            check_address(str(kind(data[:size])))


def check_headers(data: bytes) -> None:
    """Values of a server's headers: any bytes that aiohttp lets through."""
    text = data.decode("latin-1")
    seconds = parse_retry_after(text)
    assert seconds is None or 0 <= seconds < 1e14
    one, _, other = text.partition("\n")
    found = Validators.of({"ETag": one, "Last-Modified": one, "Date": other})
    assert found == NO_VALIDATORS or found.headers()
    with contextlib.suppress(OptedOut):
        refuse_noai([text])
    with contextlib.suppress(UnsupportedMedia, SourceFailed):
        for piece in decoder("gzip" if data[:1] < b"\x80" else one)(data[1:]):
            assert len(piece) <= 65_536


def check_proxy(data: bytes) -> None:
    """One client's bytes at the filtering proxy, its secret put in: nothing escapes, nothing hangs, nothing is dialled.

    `\\x00\\x00` parts what the client sends; the policy refuses every address, and names are those of `origin`.
    """
    faults: list[object] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
        async with FilteringProxy(AddressPolicy(allow_ports=()), Budget(9, 100_000, 5.0)) as proxy:
            secret = proxy._password
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy._port)
            for part in data.split(b"\0\0"):
                writer.write(part.replace(b"SECRET", _basic(secret)))
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                answer = await asyncio.wait_for(reader.read(), 10)
                assert not answer or answer[9:12] in {b"400", b"403", b"407", b"429", b"502"}, answer
                assert secret.encode() not in answer
            writer.close()
            assert proxy.connections <= 1

    real, socket.getaddrinfo = socket.getaddrinfo, _numeric
    try:
        asyncio.run(run())
    finally:
        socket.getaddrinfo = real
    assert not faults, faults


def _basic(secret: str) -> bytes:
    import base64  # noqa: PLC0415

    return base64.b64encode(f"laescan:{secret}".encode())


_names = fake_getaddrinfo(partial(socket.getaddrinfo, flags=socket.AI_NUMERICHOST))


def _numeric(host, port, *_, **__):
    return _names(host, port, 0, socket.SOCK_STREAM)


PROXIED = [
    f"{request}\r\nProxy-Authorization: Basic SECRET\r\nHost: x\r\n\r\nbody".encode()
    for request in ("CONNECT 127.0.0.1:443 HTTP/1.1", "GET http://127.0.0.1/a?b HTTP/1.1", "CONNECT [::1]:443 HTTP/1.1",
                    "GET http://inner.test:8080/ HTTP/1.1", "CONNECT a\0b:80 HTTP/1.1", "POST / HTTP/1.1")
]  # fmt: skip


# ---------------------------------------------------------------- contracts

KINDS = (Outcome, Verdict, ScanRequest, ScanRow, *(getattr(messages, name) for name in ("SubmitScan", "SubmitBatch",
         "LookUp", "Scan", "Batch", "Verdicts", "Known", "ErrorBody")))  # fmt: skip


def check_contract(data: bytes) -> None:
    """JSON in: a struct that goes out and comes back the same, or a refusal."""
    if len(data) > BATCH_BYTES:
        return
    for kind in KINDS:
        try:
            found = msgspec.json.decode(data, type=kind)
        except (msgspec.MsgspecError, ValueError, RecursionError):  # as api.bodies
            continue
        assert msgspec.json.decode(msgspec.json.encode(found), type=kind) == found
        if isinstance(found, Outcome):
            assert result_of(found)


def contracts() -> list[bytes]:
    row = ScanRow(id="0" * 32, tenant="t", source="s", queue="bulk", state="done", created_s=1.0, outcome=OUTCOMES[0])
    request = ScanRequest(source_url="http://x.test/", tenant="t")
    asked = (messages.SubmitScan("http://x.test/"), messages.LookUp(["http://x.test/", "0" * 64]))
    return [msgspec.json.encode(one) for one in (*OUTCOMES, VERDICT, row, request, *asked)]


# ---------------------------------------------------------------- the engine's wire


def _wire_json(struct: object) -> bytes:
    return msgspec.msgpack.encode(struct)


def check_wire(data: bytes) -> None:
    """A packet, and memory beside it, of a broken engine or a hostile client."""
    for kind in (wire.Request, wire.Answer):
        with contextlib.suppress(msgspec.MsgspecError, ValueError, RecursionError):
            found = msgspec.msgpack.decode(data, type=kind)
            if isinstance(found, wire.Look | wire.Inspect):
                with contextlib.suppress(wire.WireError):
                    frames = wire.unpacked(found.frames, memoryview(bytes(1000)))
                    assert len(frames) == len(found.frames)
    for unpack_seen in (wire.unpacked_faces, wire.unpacked_tiles):
        with contextlib.suppress(wire.WireError):
            unpack_seen(memoryview(data))


def packets() -> list[bytes]:
    place = wire.Place(4, 4, 0)
    look = wire.Look(model_id="m", frames=(place,), urgent=True, asked_s=1.0, losses=0, quarters=0, min_face_px=40,
                     max_faces=4)  # fmt: skip
    face = wire._WireFace((1.0, 2.0, 3.0, 4.0), bytes(40), 0.5, 0.5, ("blurred",), bytes(48), 0.1, bytes(16))
    tile = wire.Inspect(model_id="m", frames=(wire.Place(wire.TILE_PX, wire.TILE_PX, 0),), urgent=False, asked_s=1.0,
                        losses=0)  # fmt: skip
    status = wire.Status(info=VERDICT.model, calibration=Calibration(1.0, 0.0, 0.2, 0.8), pid=1, up_s=1.0, queued=0,
                         queued_bulk=0, batch_s=None, batches=1, frames=1, faces=1, halvings=0, waited_s=0.0,
                         worked_s=0.0)  # fmt: skip
    every = (
        look,
        tile,
        wire.Ask(),
        status,
        wire.Started(),
        wire.Refused("gone", "words"),
        [[face]],
        [(0.5, bytes(16))],
    )
    return [msgspec.msgpack.encode(one) for one in every]


# ---------------------------------------------------------------- Redis


def check_ledger(data: bytes) -> None:
    """A row's fields as somebody else may have left them: a row, or none; it never takes others with it."""
    try:
        fields = msgspec.msgpack.decode(data, type=dict[bytes, bytes])
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return
    row = ledger._row("0" * 32, fields, 0)
    assert row is None or msgspec.json.encode(messages.Scan.of(row))


def rows() -> list[bytes]:
    common = {
        b"tenant": b"t",
        b"source": b"http://x.test/",
        b"queue": b"bulk",
        b"attempt": b"1",
        b"created_ms": b"1700",
    }
    running = common | {b"state": b"running", b"stage": b"decode", b"percent": b"50", b"started_ms": b"1800"}
    done = common | {b"state": b"done", b"finished_ms": b"1900", b"outcome": msgspec.json.encode(OUTCOMES[1])}
    return [msgspec.msgpack.encode(one) for one in (common | {b"state": b"queued"}, running, done)]


SHA256 = "0" * 64
JUDGED = msgspec.structs.replace(VERDICT, media=msgspec.structs.replace(VERDICT.media, kind="image"))


@cache
def look() -> Look:
    return Look(np.random.default_rng(1).integers(0, 256, (96, 128, 3), np.uint8))


def check_cache(data: bytes) -> None:
    """What lies in the cache's Redis: a verdict on just this, a pointer, a picture to compare with, or a miss."""
    with contextlib.suppress(ValueError):
        found = verdicts._verdict_in(SHA256, data, "m", 1e9, f"m1:v:m:{SHA256}")
        assert found.media.sha256 == SHA256
        if recall.has_size(found):
            recall.carried_over(found, VERDICT.media, CacheInfo(kind="near"))
    with contextlib.suppress(ValueError):
        assert gist.gist_in(SHA256, data, "m", 1e9, "").sha256 == SHA256
    with contextlib.suppress(ValueError):
        assert verdicts._read_pointer(data).sha256 == data[:64].decode()
    for kind in "vup":
        with contextlib.suppress(ValueError):
            verdicts._value_of(f"m1:{kind}:{SHA256}", data, data, 0.0)
    with contextlib.suppress(ValueError):
        unpack(data, THUMB_PX)
    with contextlib.suppress(ValueError):
        assert near.difference(look(), verdicts.decoded(near._ROOT, data)) >= 0


def records() -> list[bytes]:
    stored = msgspec.msgpack.encode(verdicts._Remembered(1.0, JUDGED))
    pointer = verdicts._pointer_to(SHA256, Validators('"tag"', "Mon, 23 Nov 2026 10:00:00 GMT"))
    root = near.Root.of(look(), [(0.1, 0.1, 0.9, 0.9)])
    return [stored, pointer, pack(look().thumbnail), msgspec.msgpack.encode(root)]


def check_archive(data: bytes) -> None:
    """A file of verdicts from elsewhere: whole, or refused in words."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        with contextlib.suppress(archive.ArchiveError):
            assert archive.inspect(Path(file.name)) >= 0


def archives() -> list[bytes]:
    one = msgspec.json.encode(archive._Line("m", 1.0, JUDGED)) + b"\n"
    whole = msgspec.json.encode(archive._Head("verdicts", VERDICT_VERSION)) + b"\n" + one
    return [whole, whole + msgspec.json.encode(archive._Tail(1, hashlib.sha256(whole).hexdigest())) + b"\n"]


@cache
def signed() -> tuple[bytes, Ed25519PublicKey]:
    with tempfile.TemporaryDirectory() as folder:
        signer = receipts.Signer(Settings(state=folder))
        receipt = receipts.Receipt(scan="s", source="x", judged_s=1.0, issued_s=2.0, verdict=VERDICT)
        return msgspec.json.encode(signer.sign(receipt)), receipts.public_key(signer.public_pem())


def check_receipt(data: bytes) -> None:
    """Believed only when it says just what was signed; a key is one or is refused."""
    envelope, key = signed()
    with contextlib.suppress(receipts.ReceiptError):
        found, _ = receipts.check(data, [key])
        assert found == receipts.check(envelope, [key])[0]
    with contextlib.suppress(receipts.ReceiptError):
        receipts.public_key(data)


# ---------------------------------------------------------------- lists, feeds, settings


def check_list(data: bytes) -> None:
    """Any file as a list, in any form that somebody may say it has; the first byte says which."""
    form = (None, *FORMATS)[data[0] % (len(FORMATS) + 1)] if data else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list"
        path.write_bytes(data[1:])
        with contextlib.suppress(ListError):
            opened = open_list(str(path), form=form)
            try:
                for entry in opened.entries:
                    assert entry is not None
                    assert entry.row > 0
                    msgspec.json.encode(record_of(entry, Result(label=Label.NO_FACE), {}))
            finally:
                opened.close()


def lists() -> list[bytes]:
    import gzip  # noqa: PLC0415

    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"url": ["http://x.test/", None], "n": [1, 2]}), sink)
    texts = [b"# list\nhttp://x.test/a\n\nb.jpg\n", b'url,n\n"http://x.test/,\n",1\n', b"n\turl\n1\thttp://x.test/\n",
             b'{"url": "http://x.test/", "n": [1, {"a": 2}]}\n"http://x.test/"\n', b"\xff\xfeh\0t\0t\0p\0"]  # fmt: skip
    texts += [gzip.compress(texts[0])]
    return [bytes((at,)) + text for at, text in enumerate([b"x", *texts[:1]])] + [
        *(bytes((form,)) + text for form, text in ((0, texts[0]), (1, texts[0]), (2, texts[1]), (3, texts[2]))),
        *(bytes((form,)) + text for form, text in ((4, texts[3]), (0, texts[4]), (0, texts[5]))),
        b"\5" + sink.getvalue().to_pybytes(),
    ]


def check_feed(data: bytes) -> None:
    with contextlib.suppress(ListError):
        found, sitemaps = asyncio.run(links_in(data, 8_192))
        assert all(isinstance(url, str) for pair in found for url in pair)
        assert all(isinstance(url, str) for url in sitemaps)


FEEDS = [
    b'<rss xmlns:media="m"><item><link>http://a.test/</link><media:content url="http://a.test/b.jpg"/></item></rss>',
    b'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"><url><loc>http://a.test/</loc></url></urlset>',
    b"<sitemapindex><sitemap><loc>http://a.test/</loc></sitemap></sitemapindex>",
    b'<feed><entry><link rel="enclosure" href="http://a.test/c"/></entry></feed>',
    b'<!DOCTYPE a [<!ENTITY b "bb">]><rss>&b;</rss>',
]


def check_settings(data: bytes) -> None:
    name, _, value = data.decode("utf-8", "replace").partition("=")
    with contextlib.suppress(SettingsError):
        Settings.from_env({f"LAESCAN_{name}": value})


def environments() -> list[bytes]:
    return [f"{name.upper()}={value}".encode() for name, value in msgspec.structs.asdict(Settings()).items()]


TARGETS: dict[str, Target] = {
    "sniff": Target(check_sniff, lambda: [*pictures(), *clips(), *media.NOT_MEDIA.values()]),
    "picture": Target(partial(_by_module, kind="image"), pictures),
    "video": Target(partial(_by_module, kind="video"), clips),
    "jail": Target(check_jail, lambda: [*pictures(), *clips()]),
    "url": Target(check_url, lambda: [url.encode("utf-8", "surrogatepass") for url in URLS]),
    "policy": Target(check_policy, lambda: [b"\x7f\0\0\1" + bytes(12), bytes(15) + b"\1", b"127.0.0.1", b"::1%lo"]),
    "headers": Target(check_headers, lambda: [b"120", b'"tag"\nMon, 23 Nov 2026 10:00:00 GMT', b"laescan: noai, x",
                                              b"Mon, 23 Nov 2026 10:00:00 +0100\nMon, 23 Nov 2026 12:00:00 GMT"]),
    "proxy": Target(check_proxy, lambda: PROXIED),
    "contract": Target(check_contract, contracts),
    "wire": Target(check_wire, packets),
    "ledger": Target(check_ledger, rows),
    "cache": Target(check_cache, records),
    "archive": Target(check_archive, archives),
    "receipt": Target(check_receipt, lambda: [signed()[0], receipts.to_pem(signed()[1])]),
    "list": Target(check_list, lists),
    "feed": Target(check_feed, lambda: FEEDS),
    "settings": Target(check_settings, environments),
}  # fmt: skip
