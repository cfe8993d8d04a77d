import re

import msgspec
import pytest
from readme import as_variable
from redis.asyncio import Redis

from scanner.bulk.plan import model_file
from scanner.cache.verdicts import VerdictCache
from scanner.doctor import setting_meanings
from scanner.settings import Settings, SettingsError


def from_env(**variables: str) -> Settings:
    return Settings.from_env({f"LAESCAN_{name}": value for name, value in variables.items()})


def test_an_empty_environment_gives_the_documented_limits() -> None:
    settings = Settings.from_env({})
    assert settings == Settings()
    assert (settings.max_image_bytes, settings.max_video_bytes, settings.max_redirects) == (50_000_000, 500_000_000, 5)
    assert (settings.first_byte_timeout_s, settings.image_timeout_s, settings.video_timeout_s) == (10, 60, 300)


def test_variables_of_others_are_left_alone() -> None:
    assert Settings.from_env({"PATH": "/bin", "LAESCANNER": "1", "MAX_FRAMES": "3"}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("MAX_FRAMES", "32", 32),
        ("IMAGE_TIMEOUT_S", "2.5", 2.5),
        ("IMAGE_TIMEOUT_S", "7", 7.0),
        ("REQUIRE_JAIL", "false", False),
        ("REQUIRE_JAIL", "0", False),
        ("REGIONS", "true", True),
        ("USER_AGENT", "me (me@example.org)", "me (me@example.org)"),
        ("ALLOW_NETWORKS", "192.168.7.0/24, fd00::/8", ("192.168.7.0/24", "fd00::/8")),
        ("ALLOW_NETWORKS", "", ()),
        ("ALLOW_PORTS", "80,443,8443", (80, 443, 8443)),
    ],
)
def test_text_becomes_the_fields_type(name: str, text: str, value: object) -> None:
    found = getattr(from_env(**{name: text}), name.lower())
    assert found == value
    assert type(found) is type(value)


def test_a_typo_is_an_error_that_names_it() -> None:
    with pytest.raises(SettingsError, match=r"LAESCAN_MAX_FRAME\b.*doctor"):
        from_env(MAX_FRAME="8")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MAX_FRAMES", "many"),
        ("MAX_FRAMES", "0"),
        ("MAX_FRAMES", "513"),
        ("MAX_FACES", "-1"),
        ("MIN_FACE_PX", "15"),
        ("CONNECT_TIMEOUT_S", "0"),
        ("CONNECT_TIMEOUT_S", "nan"),
        ("CONNECT_TIMEOUT_S", "inf"),
        ("MAX_REDIRECTS", "-1"),
        ("MAX_IMAGE_BYTES", "1e6.5"),
        ("REQUIRE_JAIL", "perhaps"),
        ("ALLOW_PORTS", "http"),
        ("ALLOW_PORTS", "80,70000"),
        ("ALLOW_NETWORKS", "192.168.7.0/33"),
        ("ALLOW_NETWORKS", "intranet"),
    ],
)
def test_a_value_that_does_not_fit_is_an_error_that_names_the_setting(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=name.lower()):
        from_env(**{name: text})


def test_settings_cannot_be_changed_after_the_start() -> None:
    with pytest.raises(AttributeError):
        Settings().max_frames = 1  # type: ignore[misc]


def test_unknown_fields_are_refused_in_code_too() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"max_frame": 1}, Settings)


def test_every_setting_is_explained_in_words_that_end() -> None:
    docs = setting_meanings()
    assert list(docs) == [field.name for field in msgspec.structs.fields(Settings)]
    assert [name for name, doc in docs.items() if not re.fullmatch(r"[A-Z].+\.", doc)] == []


def test_limits_carry_their_unit() -> None:
    numbers = [f.name for f in msgspec.structs.fields(Settings) if type(f.default) in (int, float)]
    units = ("_bytes", "_pixels", "_px", "_s", "_streams", "_frames", "_faces", "_redirects", "_connections", "threads")
    units += ("_share", "_port", "_per_min", "_queued", "_queued_bulk", "_urls", "workers")
    assert [name for name in numbers if not name.endswith(units)] == []


def test_defaults_pass_their_own_validation() -> None:
    assert msgspec.convert(msgspec.structs.asdict(Settings()), Settings) == Settings()


@pytest.mark.parametrize("name", [field.name for field in msgspec.structs.fields(Settings)])
def test_a_default_may_be_given_as_the_readme_shows_it(name: str) -> None:
    assert from_env(**{name.upper(): as_variable(getattr(Settings(), name))}) == Settings()


def test_what_decides_what_is_seen_is_named_and_nothing_else():
    assert Settings(scan_timeout_s=7, min_face_px=Settings().min_face_px).judging() == ""
    assert Settings(max_frames=32, min_face_px=48, log_level="debug").judging() == ",max_frames=32,min_face_px=48"


def test_verdicts_and_rows_are_bound_by_the_same_settings():
    settings = Settings(max_decoded_bytes=9_000_000)
    assert VerdictCache(Redis.from_url("unix:///nowhere"), settings).scope("m") == "m" + settings.judging()
    assert model_file(settings).endswith(settings.judging())
