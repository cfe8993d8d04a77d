"""A verdict in, a signed receipt out, and back: what was judged, by which model, when, and who says so.

    envelope (DSSE): {"payloadType": TYPE, "payload": base64(JSON of a Receipt), "signatures": [{"keyid", "sig"}]}
    signed bytes:    "DSSEv1" SP len(TYPE) SP TYPE SP len(payload) SP payload        (lengths in bytes, decimal)

One reason: a verdict that is passed on must be checked by people who cannot ask us, years later and offline. What is
signed are the very bytes that travel, so nothing has to be written the same way twice. The format is the one that
software supply chains use (https://github.com/secure-systems-lab/dsse); the signature is Ed25519 (RFC 8032), the keys
are PEM, so openssl checks it, too. TYPE names the verdict's version: another one is refused, not guessed at.
Light: the API signs. `cryptography` (0.1 s, 12 MB) is loaded by the first who signs or checks.
"""

import contextlib
import hashlib
import os
import secrets
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from scanner.contract import VERDICT_VERSION, Verdict
from scanner.folders import state_folder
from scanner.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

TYPE: Final = f"application/vnd.laescan.receipt+json;version={VERDICT_VERSION}"
MOST_BYTES: Final = 16_000_000
"""A receipt is a few kB; a video with many faces has some hundred."""


class ReceiptError(Exception):
    """The receipt is not to be believed, or a key is none; the message says why."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed. Times are seconds since 1970; `verdict.media.sha256` says which bytes it is about.

    `judged_s` is when the model saw what the verdict is on; `verdict.cache` tells whether that was for this very scan.
    `source` is as it was given, but for credentials, query and fragment of a URL, which may hold secrets.
    """

    scan: str
    source: str
    judged_s: float
    issued_s: float
    verdict: Verdict


class Signature(msgspec.Struct, frozen=True):
    """One signature; `keyid` is a hint which key to try, nothing more."""

    keyid: Annotated[str, Meta(max_length=200)]
    sig: Annotated[bytes, Meta(max_length=200)]


class SignedReceipt(msgspec.Struct, frozen=True, rename="camel"):
    """A DSSE envelope: `payload` is a Receipt as JSON in base64. `laescan verify` checks it offline."""

    payload_type: str
    payload: bytes
    signatures: Annotated[tuple[Signature, ...], Meta(min_length=1, max_length=8)]


class Signer:
    """Signs with the key that the settings name; nothing is read or made before somebody asks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key: Ed25519PrivateKey | None = None

    def sign(self, receipt: Receipt) -> SignedReceipt:
        """Raises ReceiptError when the key cannot be had."""
        payload, key = msgspec.json.encode(receipt), self._ready()
        signature = Signature(key_id(key.public_key()), key.sign(_signed_bytes(TYPE, payload)))
        return SignedReceipt(TYPE, payload, (signature,))

    def public_pem(self) -> bytes:
        """The public half, SubjectPublicKeyInfo as PEM; raises ReceiptError when the key cannot be had."""
        return to_pem(self._ready().public_key())

    def _ready(self) -> "Ed25519PrivateKey":
        if self._key is None:
            self._key = _own_key(key_path(self._settings))
        return self._key


def key_path(settings: Settings) -> Path:
    """Where the key is that signs."""
    return Path(settings.receipt_key) if settings.receipt_key else state_folder(settings) / "receipt.key"


def check(data: bytes, keys: "Iterable[Ed25519PublicKey]") -> tuple[Receipt, str]:
    """The receipt in these bytes and the id of the key, one of `keys`, that signed it; raises ReceiptError."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - see above

    try:
        envelope = msgspec.json.decode(data[:MOST_BYTES], type=SignedReceipt)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        msg = f"this is no receipt, or a piece of one: {error}"
        raise ReceiptError(msg) from error
    if envelope.payload_type != TYPE:
        msg = f"it says that it is {envelope.payload_type!r}; this program knows {TYPE!r}"
        raise ReceiptError(msg)
    signed = _signed_bytes(envelope.payload_type, envelope.payload)
    for key in keys:
        for signature in envelope.signatures:
            with contextlib.suppress(InvalidSignature):
                key.verify(signature.sig, signed)
                return _read(envelope.payload), key_id(key)
    names = ", ".join(repr(signature.keyid) for signature in envelope.signatures)
    msg = f"it was changed, or signed by another key (it names {names})"
    raise ReceiptError(msg)


def _read(payload: bytes) -> Receipt:
    """What a good signature stands over; only our own bug can make it unreadable."""
    try:
        return msgspec.json.decode(payload, type=Receipt)
    except msgspec.MsgspecError as error:
        msg = f"the signature is good, but what it stands over is no receipt of version {VERDICT_VERSION}: {error}"
        raise ReceiptError(msg) from error


def public_key(pem: bytes) -> "Ed25519PublicKey":
    """The key in a PEM file: a public one, or the public half of a private one; raises ReceiptError."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - see above
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(pem, None) if b"PRIVATE KEY" in pem else load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it wants a password
        msg = f"no key in PEM: {error}"
        raise ReceiptError(msg) from error
    found = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    if not isinstance(found, Ed25519PublicKey):
        msg = "a key, but not of Ed25519"
        raise ReceiptError(msg)
    return found


def to_pem(key: "Ed25519PublicKey") -> bytes:
    """A public key as `public_key` and openssl read it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def key_id(key: "Ed25519PublicKey") -> str:
    """The first 16 hex digits of the sha256 of its 32 bytes: for people to compare."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def without_secrets(source: str) -> str:
    """A URL without credentials, query and fragment; anything else as it is."""
    try:
        parts = urlsplit(source)
    except ValueError:
        return source.partition("?")[0]
    if parts.scheme not in {"http", "https"}:
        return source
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _signed_bytes(kind: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: kind and payload cannot be shifted into each other."""
    name = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(name), name, len(payload), payload)


def _own_key(path: Path) -> "Ed25519PrivateKey":
    """The private key there, made by the first who asks; raises ReceiptError."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        if not path.exists():
            _make_key(path)
        if stat.S_IMODE(path.stat().st_mode) & 0o007:
            msg = f"everybody may read {path}: chmod 600 it, or let `laescan doctor --fix`"
            raise ReceiptError(msg)
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        msg = f"no key to sign with: {error}; set LAESCAN_RECEIPT_KEY to an Ed25519 key in PEM"
        raise ReceiptError(msg) from error
    if not isinstance(key, Ed25519PrivateKey):
        msg = f"{path} holds another key than one of Ed25519"
        raise ReceiptError(msg)
    return key


def _make_key(path: Path) -> None:
    """Write a new key whole or not at all; who comes second keeps the first one's."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat  # noqa: PLC0415

    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, pem)
        os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.close(descriptor)
        draft.unlink()
