"""Receipts: what was signed is believed, and nothing else, wherever it is checked."""

import base64
import hashlib
import json
import stat
import subprocess
import sys
import threading

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st
from service import URL, served
from verdicts import HIGH, scored, still

from scanner.cli import Exit, main
from scanner.contract import CacheInfo, Media
from scanner.receipts import (
    TYPE,
    Receipt,
    ReceiptError,
    SignedReceipt,
    Signer,
    check,
    key_id,
    key_path,
    public_key,
    without_secrets,
)
from scanner.settings import Settings

PIXELS = b"the very bytes that were judged"
VERDICT = msgspec.structs.replace(
    still(scored(HIGH, peak_at=(3, 4))),
    media=Media(
        kind="image", format="jpeg", size_bytes=31, width=8, height=8, sha256=hashlib.sha256(PIXELS).hexdigest()
    ),
)
RECEIPT = Receipt(scan="ab" * 16, source="https://example.org/a.jpg", judged_s=1e9, issued_s=1e9 + 5, verdict=VERDICT)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings(state=str(tmp_path_factory.mktemp("state")))


@pytest.fixture(scope="module")
def signer(settings):
    return Signer(settings)


@pytest.fixture(scope="module")
def signed(signer):
    return msgspec.json.encode(signer.sign(RECEIPT))


@pytest.fixture(scope="module")
def key(signer):
    return public_key(signer.public_pem())


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Signer(Settings(state=str(tmp_path_factory.mktemp("stranger"))))


def private_pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


# ---------------------------------------------------------------- what is signed


def test_what_was_signed_comes_back_as_it_was(signed, key):
    assert check(signed, [key]) == (RECEIPT, key_id(key))


def test_the_envelope_is_dsse_and_its_bytes_are_what_the_standard_says(signed, key):
    envelope = json.loads(signed)
    assert set(envelope) == {"payloadType", "payload", "signatures"}
    payload = base64.b64decode(envelope["payload"], validate=True)
    kind = envelope["payloadType"].encode()
    pae = b" ".join([b"DSSEv1", str(len(kind)).encode(), kind, str(len(payload)).encode(), payload])
    (one,) = envelope["signatures"]
    key.verify(base64.b64decode(one["sig"], validate=True), pae)
    assert json.loads(payload)["verdict"]["media"]["sha256"] == VERDICT.media.sha256


def test_openssl_can_check_it_without_us(signed, signer, tmp_path):
    envelope = json.loads(signed)
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"]
    (tmp_path / "signed").write_bytes(f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload)
    (tmp_path / "sig").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    (tmp_path / "key").write_bytes(signer.public_pem())
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key", "-rawin", "-in", "signed", "-sigfile", "sig"]
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no openssl here")
    assert "Verified Successfully" in done.stdout, done


@given(st.data())
def test_no_changed_bit_is_believed(signed, key, data):
    place = data.draw(st.integers(0, len(signed) - 1))
    changed = bytearray(signed)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        receipt, _ = check(bytes(changed), [key])
    except ReceiptError:
        return
    assert receipt == RECEIPT, "only what is not signed may differ: the hint of the key's id, spaces"


@pytest.mark.parametrize("kept", [0, 1, 20, 0.5, -1])
def test_a_piece_is_no_receipt(signed, key, kept):
    piece = signed[: int(len(signed) * kept) if isinstance(kept, float) else kept]
    with pytest.raises(ReceiptError, match="no receipt, or a piece of one"):
        check(piece, [key])


def test_another_verdict_under_the_old_signature_is_refused(signed, key):
    envelope = msgspec.json.decode(signed, type=SignedReceipt)
    other = msgspec.structs.replace(RECEIPT, verdict=msgspec.structs.replace(VERDICT, score=0.01, label="authentic"))
    forged = msgspec.structs.replace(envelope, payload=msgspec.json.encode(other))
    with pytest.raises(ReceiptError, match="changed, or signed by another key"):
        check(msgspec.json.encode(forged), [key])


def test_another_key_is_refused_whatever_id_it_claims(stranger, key):
    envelope = stranger.sign(RECEIPT)
    claimed = msgspec.structs.replace(envelope.signatures[0], keyid=key_id(key))
    with pytest.raises(ReceiptError, match="another key"):
        check(msgspec.json.encode(msgspec.structs.replace(envelope, signatures=(claimed,))), [key])
    ours = public_key(stranger.public_pem())
    assert check(msgspec.json.encode(envelope), [key, ours])[1] == key_id(ours), "one trusted key is enough"


@pytest.mark.parametrize("kind", [TYPE.replace("version=1", "version=2"), "application/json", ""])
def test_an_unknown_version_is_refused_and_not_guessed_at(signer, key, kind):
    envelope = msgspec.structs.replace(signer.sign(RECEIPT), payload_type=kind)
    with pytest.raises(ReceiptError, match="this program knows"):
        check(msgspec.json.encode(envelope), [key])


def test_a_good_signature_over_something_else_is_no_receipt(signer, key, monkeypatch):
    monkeypatch.setattr("scanner.receipts.msgspec.json.encode", lambda _receipt: b'{"scan": 1}')
    envelope = signer.sign(RECEIPT)
    monkeypatch.undo()
    with pytest.raises(ReceiptError, match="stands over is no receipt"):
        check(msgspec.json.encode(envelope), [key])


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://u:p@example.org:8443/a%20b.jpg?token=s3cret#x", "https://example.org:8443/a%20b.jpg"),
        ("HTTP://example.org", "http://example.org"),
        ("holiday?.jpg", "holiday?.jpg"),
        ("https://[broken/a.jpg?token=s3cret", "https://[broken/a.jpg"),
    ],
)
def test_no_secret_of_a_url_is_passed_on(given, kept):
    assert without_secrets(given) == kept


# ---------------------------------------------------------------- the key


def test_the_key_is_made_once_and_for_us_alone(tmp_path):
    settings = Settings(state=str(tmp_path))
    signers = [Signer(settings) for _ in range(8)]
    found = []
    threads = [threading.Thread(target=lambda s=s: found.append(s.public_pem())) for s in signers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1, "who comes second keeps the first one's"
    assert [path.name for path in tmp_path.iterdir()] == ["receipt.key"]
    assert stat.S_IMODE(key_path(settings).stat().st_mode) == 0o600


def test_nothing_is_made_before_somebody_asks(tmp_path):
    Signer(Settings(state=str(tmp_path / "state")))
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"", 0o600, "no key to sign with"),
        (private_pem(generate_private_key(SECP256R1())), 0o600, "another key than one of Ed25519"),
        (private_pem(Ed25519PrivateKey.generate()), 0o644, "everybody may read"),
    ],
)
def test_a_key_that_is_none_of_ours_is_not_signed_with(tmp_path, content, mode, words):
    path = tmp_path / "given.pem"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(ReceiptError, match=words):
        Signer(Settings(receipt_key=str(path))).sign(RECEIPT)


def test_signing_costs_nothing_until_it_is_asked_for():
    code = "import sys, api.app, scanner.receipts; print('cryptography.hazmat.primitives.serialization' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"


# ---------------------------------------------------------------- the command


@pytest.fixture
def files(tmp_path, signed, signer):
    (tmp_path / "receipt.json").write_bytes(signed)
    (tmp_path / "key.pem").write_bytes(signer.public_pem())
    (tmp_path / "same.jpg").write_bytes(PIXELS)
    (tmp_path / "other.jpg").write_bytes(PIXELS + b"!")
    return tmp_path


def test_the_command_says_what_is_signed_and_for_which_file(files, capsys):
    command = ["verify", str(files / "receipt.json"), "--key", str(files / "key.pem")]
    assert main([*command, "--media", str(files / "same.jpg")]) == Exit.OK
    said = capsys.readouterr().out
    for words in ("valid, signed by key ", "example.org", VERDICT.media.sha256, "manipulated, score 0.9", "2001-09-09"):
        assert words in said
    assert main([*command, "--media", str(files / "other.jpg")]) == Exit.FAIL_ON
    assert "about other bytes" in capsys.readouterr().err
    assert main([*command, "--json"]) == Exit.OK
    assert msgspec.json.decode(capsys.readouterr().out, type=Receipt) == RECEIPT


def test_the_machine_that_signed_needs_no_key(files, capsys, settings, monkeypatch):
    monkeypatch.setenv("LAESCAN_STATE", settings.state)
    assert main(["verify", str(files / "receipt.json")]) == Exit.OK


def test_what_cannot_be_checked_is_not_called_invalid(files, capsys, monkeypatch):
    monkeypatch.setenv("LAESCAN_STATE", str(files / "nobody"))
    receipt, key = str(files / "receipt.json"), str(files / "key.pem")
    assert main(["verify", receipt]) == Exit.USAGE
    assert main(["verify", str(files / "nowhere.json"), "--key", key]) == Exit.USAGE
    assert main(["verify", receipt, "--key", receipt]) == Exit.USAGE
    assert all("/v1/key" in line for line in capsys.readouterr().err.splitlines())
    assert main(["verify", key, "--key", key]) == Exit.FAIL_ON
    assert "no receipt" in capsys.readouterr().err


def test_a_forged_key_id_cannot_drive_the_terminal(files, stranger, capsys):
    envelope = stranger.sign(RECEIPT)
    odd = msgspec.structs.replace(envelope.signatures[0], keyid="\x1b[2J")
    (files / "odd.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(envelope, signatures=(odd,))))
    assert main(["verify", str(files / "odd.json"), "--key", str(files / "key.pem")]) == Exit.FAIL_ON
    assert "\x1b" not in capsys.readouterr().err


# ---------------------------------------------------------------- over HTTP


@pytest.fixture
def serve(redis_url, tmp_path):
    return lambda test, **options: served(redis_url, tmp_path, test, state=str(tmp_path / "state"), **options)


def test_a_scan_has_a_receipt_once_it_has_a_verdict(serve):
    async def asked(api):
        id_ = await api.submit(f"{URL}?token=s3cret")
        status, answer, _ = await api.ask("GET", f"/v1/scans/{id_}/receipt")
        assert (status, answer["error"]["code"]) == (404, "not_found")
        api.finish(id_, VERDICT, source=f"{URL}?token=s3cret")
        status, answer, headers = await api.ask("GET", f"/v1/scans/{id_}/receipt")
        assert status == 200
        assert f"receipt-{id_}.json" in headers["Content-Disposition"]
        status, pem, headers = await api.ask("GET", "/v1/key")
        assert (status, headers["Content-Type"]) == (200, "application/x-pem-file")
        receipt, _ = check(json.dumps(answer).encode(), [public_key(pem)])
        assert (receipt.scan, receipt.source, receipt.verdict) == (id_, URL, VERDICT)
        assert b"s3cret" not in base64.b64decode(answer["payload"])
        assert receipt.judged_s <= receipt.issued_s

    serve(asked)


@pytest.mark.parametrize("kind", ["exact", "near"])
def test_what_was_remembered_is_said_to_be_judged_when_it_was(serve, tmp_path, capsys, kind):
    cache = CacheInfo(kind=kind, age_s=86_400.0, root="0" * 64)

    async def asked(api):
        id_ = await api.submit()
        api.finish(id_, msgspec.structs.replace(VERDICT, cache=cache))
        row = await api.service.ledger.get(id_, tenant="local")
        _, answer, _ = await api.ask("GET", f"/v1/scans/{id_}/receipt")
        _, pem, _ = await api.ask("GET", "/v1/key")
        data = json.dumps(answer).encode()
        receipt, _ = check(data, [public_key(pem)])
        assert receipt.judged_s == row.finished_s - 86_400.0
        (tmp_path / "receipt.json").write_bytes(data)
        (tmp_path / "key.pem").write_bytes(pem)

    serve(asked)
    assert main(["verify", str(tmp_path / "receipt.json"), "--key", str(tmp_path / "key.pem")]) == Exit.OK
    shown = capsys.readouterr().out
    assert "remembered" in shown
    assert ("provisional" in shown) is (kind == "near")


def test_a_receipt_is_for_its_own_tenant(serve):
    async def asked(api):
        mine, theirs = await api.token(tenant="mine"), await api.token(tenant="theirs")
        _, scan, _ = await api.ask("POST", "/v1/scans", json={"url": URL}, headers=mine)
        api.finish(scan["id"], VERDICT)
        path = f"/v1/scans/{scan['id']}/receipt"
        assert [(await api.ask("GET", path, headers=who))[0] for who in (mine, theirs)] == [200, 404]

    serve(asked, access="token")


def test_a_server_that_cannot_sign_says_so_and_not_where_its_files_are(serve, tmp_path):
    async def asked(api):
        id_ = await api.submit()
        api.finish(id_, VERDICT)
        for path in (f"/v1/scans/{id_}/receipt", "/v1/key"):
            status, answer, _ = await api.ask("GET", path)
            assert (status, answer["error"]["code"]) == (503, "unavailable")
            assert str(tmp_path) not in json.dumps(answer)

    serve(asked, receipt_key=str(tmp_path / "nowhere" / "key.pem"))
