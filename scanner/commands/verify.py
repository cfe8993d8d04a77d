"""`laescan verify`: check a signed receipt offline, and that a file is the one it is about."""

import argparse
import hashlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from scanner.commands.exits import Exit, fail
from scanner.settings import Settings

if TYPE_CHECKING:
    from scanner.receipts import Receipt

EPILOG = """\
examples:
  curl -s localhost:8117/v1/scans/ID/receipt > receipt.json
  curl -s localhost:8117/v1/key > server.pem      # once, from whom you trust
  laescan verify receipt.json --key server.pem
  laescan verify receipt.json --media photo.jpg   # and: is it about this very file?

exit codes:
  0  the receipt is what the owner of the key signed, and about the file
  1  it is not; the words tell why
  2  the command is wrong, or a file cannot be read

A good receipt says who claims what about which bytes. It does not make the verdict right.
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command and its arguments."""
    verify = commands.add_parser(
        "verify",
        help="check a signed receipt, offline",
        description="Check that a receipt was signed by a key that you trust, and that it is about a file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("receipt", type=Path, metavar="RECEIPT", help="the JSON file")
    verify.add_argument("--media", type=Path, metavar="FILE", help="what it is said to be about: compare the bytes")
    verify.add_argument(
        "--key",
        type=Path,
        action="append",
        metavar="PEM",
        help="of whom you trust; may be repeated (default: this machine's own)",
    )
    verify.add_argument("--json", action="store_true", help="print what is signed, as JSON")
    verify.set_defaults(run=run)


def run(given: argparse.Namespace) -> Exit:
    """Check, and say what is signed."""
    from scanner.receipts import ReceiptError, check, key_path, public_key

    paths = given.key or [key_path(Settings.from_env(os.environ))]
    try:
        keys = [public_key(path.read_bytes()) for path in paths]
        data = given.receipt.read_bytes()
        digest = _sha256(given.media) if given.media else None
    except (OSError, ReceiptError) as error:
        return fail(f"{error}; --key wants what a server answers at /v1/key", Exit.USAGE)
    try:
        receipt, signer = check(data, keys)
    except ReceiptError as error:
        return fail(f"not valid: {error}", Exit.FAIL_ON)
    if digest not in {None, receipt.verdict.media.sha256}:
        return fail(f"not valid for {given.media}: the receipt is about other bytes", Exit.FAIL_ON)
    _show(receipt, signer, json=given.json)
    return Exit.OK


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _show(receipt: "Receipt", signer: str, *, json: bool) -> None:
    import msgspec

    if json:
        print(msgspec.json.encode(receipt).decode())
        return
    verdict = receipt.verdict
    score = "no score" if verdict.score is None else f"score {verdict.score:.3f}"
    print(f"valid, signed by key {signer} at {_clock(receipt.issued_s)}")
    print(f"  {receipt.source!r}, judged at {_clock(receipt.judged_s)}")
    print(f"  sha256 {verdict.media.sha256}, {verdict.media.size_bytes} bytes")
    print(f"  {verdict.label.value}, {score}, by model {verdict.model.model_id}")
    if verdict.cache.kind != "miss":
        print("  remembered: the scan was answered later, without judging again")
    if verdict.cache.kind == "near":
        print(f"  provisional: inherited from a picture that looks the same, sha256 {verdict.cache.root}")


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
