"""Where the configuration comes from and what it says when nothing is wrong."""

import os
import re
import tomllib
from pathlib import Path

import pytest

from proxy.config import ConfigError, Loaded, Settings, load
from proxy.config.environment import read
from proxy.config.section import Section, section_in

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "franker.toml.example"


def configured(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> Loaded:
    file = tmp_path / "given.toml"
    file.write_text(text, encoding="utf-8")
    return load(file, environ or {})


def fault(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        configured(text, tmp_path, environ)
    return str(caught.value)


# The example file.


def test_the_example_holds_the_defaults_and_gives_no_notice() -> None:
    loaded = load(EXAMPLE, {})
    assert loaded.settings == Settings()
    assert loaded.notices == ()


def uncommented() -> str:
    return re.sub(r"(?m)^#(?=[a-z\[])", "", EXAMPLE.read_text())


def test_what_the_example_shows_as_comments_is_valid_too(tmp_path: Path) -> None:
    settings = configured(uncommented(), tmp_path).settings
    assert settings.rules[0].name == "payroll"
    assert settings.streams["broadcasts"].kind == "broadcast"
    assert settings.notify.to == "ops@example.com"
    assert settings.model_dump(include={"journal", "dead"}) == Settings().model_dump(
        include={"journal", "dead"}
    )


def test_the_example_shows_every_key_that_there_is() -> None:
    written = tomllib.loads(uncommented())
    written["streams"] = {**written["streams"]["outbound"], **written["streams"]["broadcasts"]}
    written["rules"] = written["rules"][0]

    def keys(section: type[Section]) -> set[str]:
        return {field.alias or name for name, field in section.model_fields.items()}

    assert keys(Settings) == set(written)
    for name, field in Settings.model_fields.items():
        table = section_in(field.annotation)
        if table is not None:
            assert keys(table) == set(written[name]), name


# Where it is looked for.


def test_without_any_file_the_defaults_hold() -> None:
    loaded = load(None, {}, searched=[Path("/nonexistent/franker.toml")])
    assert loaded == Loaded(Settings(), "defaults", (), None)


def test_the_first_file_found_is_read_and_no_other(tmp_path: Path) -> None:
    near, far = tmp_path / "near.toml", tmp_path / "far.toml"
    far.write_text('[log]\nformat = "json"\n[retry]\nfirst = "1s"\n')
    assert load(None, {}, searched=[near, far]).settings.log.format == "json"
    near.write_text('[log]\naddresses = "domain"\n')
    loaded = load(None, {}, searched=[near, far])
    assert (loaded.settings.log.format, loaded.settings.log.addresses) == ("kv", "domain")
    assert loaded.settings.retry.first == 30.0
    assert (loaded.path, loaded.source) == (near, str(near))


def test_the_variable_names_a_file_and_the_option_wins_over_it(tmp_path: Path) -> None:
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text("[listen]\nmax_recipients = 1\n")
    other.write_text("[listen]\nmax_recipients = 2\n")
    environ = {"FRANKER_CONFIG": str(one)}
    assert load(None, environ, searched=[other]).settings.listen.max_recipients == 1
    assert load(other, environ).settings.listen.max_recipients == 2


@pytest.mark.parametrize(
    ("path", "environ", "who"),
    [
        (Path("/nonexistent/a.toml"), {}, "--config"),
        (None, {"FRANKER_CONFIG": "/nonexistent/a.toml"}, "$FRANKER_CONFIG"),
    ],
)
def test_a_file_that_was_named_must_be_there(
    path: Path | None, environ: dict[str, str], who: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    assert str(caught.value).splitlines() == [
        "/nonexistent/a.toml: 1 fault",
        f"  no such file; {who} names it",
    ]


def test_a_file_that_cannot_be_read_is_never_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "franker.toml"
    folder.mkdir()
    with pytest.raises(ConfigError, match="cannot be read: is a directory"):
        load(None, {}, searched=[folder])


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "windows.toml"
    file.write_bytes(b'\xef\xbb\xbf[log]\r\nformat = "json"\r\n')
    assert load(file, {}).settings.log.format == "json"


# What values mean.


def test_sizes_and_times_are_octets_and_seconds(tmp_path: Path) -> None:
    settings = configured(
        """
        [listen]
        max_message_size = "1.5 MB"
        memory = 2000000
        [redis]
        max_memory = "2GB"
        [retry]
        first = "500ms"
        cap = 90
        horizon = "2d"
        """,
        tmp_path,
    ).settings
    assert (settings.listen.max_message_size, settings.listen.memory) == (1_500_000, 2_000_000)
    assert settings.redis.max_memory == 2_000_000_000
    assert (settings.retry.first, settings.retry.cap, settings.retry.horizon) == (0.5, 90, 172_800)


def test_outbound_is_always_there(tmp_path: Path) -> None:
    settings = configured('[streams.news]\nkind = "broadcast"', tmp_path).settings
    assert list(settings.streams) == ["outbound", "news"]
    assert settings.streams["outbound"].token[0].env == "POSTMARK_SERVER_TOKEN"


def test_a_stream_without_a_login_uses_the_server_token(tmp_path: Path) -> None:
    settings = configured('[streams.news]\nkind = "broadcast"', tmp_path).settings
    assert [secret.env for secret in settings.streams["news"].token] == ["POSTMARK_SERVER_TOKEN"]


def test_a_stream_with_an_smtp_token_has_no_other_login(tmp_path: Path) -> None:
    text = '[streams.news]\naccess_key = { env = "A" }\nsecret_key = { file = "/B" }'
    news = configured(text, tmp_path).settings.streams["news"]
    assert (news.token, news.access_key[0].name, news.secret_key[0].name) == (
        (),
        "env A",
        "file /B",
    )


def test_a_list_of_secrets_keeps_its_order(tmp_path: Path) -> None:
    text = '[streams.outbound]\ntoken = [{ env = "NEW" }, { credential = "old" }]'
    token = configured(text, tmp_path).settings.streams["outbound"].token
    assert [secret.name for secret in token] == ["env NEW", "credential old"]


def test_a_lone_text_is_a_list_of_one(tmp_path: Path) -> None:
    text = '[listen]\nsmtp = "[::1]:2525"\nallow = "::1"\n[[rules]]\nsender = "<>"\nuser = 0'
    settings = configured(text, tmp_path).settings
    assert [one.address for one in settings.listen.smtp] == ["[::1]:2525"]
    assert settings.listen.allow == ("::1",)
    assert (settings.rules[0].sender, settings.rules[0].user) == (("<>",), ("0",))


def test_a_rule_without_a_name_is_named_by_its_position(tmp_path: Path) -> None:
    text = '[[rules]]\nname = "first"\nsender = "a@*"\n[[rules]]\ntag = "x"'
    assert [rule.name for rule in configured(text, tmp_path).settings.rules] == ["first", "rule-2"]


def test_an_idn_and_a_local_alias_of_an_alias_are_allowed(tmp_path: Path) -> None:
    text = """
        [local]
        domain = "büro.example"
        from = "root@büro.example"
        aliases = { www = "root", root = ["a@example.com", "b@example.com"] }
        """
    local = configured(text, tmp_path).settings.local
    assert local.aliases == {"www": ("root",), "root": ("a@example.com", "b@example.com")}
    assert (local.domain, local.from_) == ("büro.example", "root@büro.example")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().listen.http = "127.0.0.1:1"  # type: ignore[misc]  # that is the point


# The environment.


def test_every_key_can_be_set_in_the_environment(tmp_path: Path) -> None:
    environ = {
        "FRANKER_DATA_DIR": "/srv/franker",
        "FRANKER_LISTEN__SMTP": "127.0.0.1:2525, [::1]:2525",
        "FRANKER_LISTEN__MAX_MESSAGE_SIZE": "1MB",
        "FRANKER_LOCAL__FROM": "host@example.com",
        "FRANKER_LOCAL__ALIASES": '{"root": "a@example.com"}',
        "FRANKER_REDIS__PASSWORD": '{"file": "/run/pw"}',
        "FRANKER_REDIS__REQUIRE_DURABLE": "false",
        "FRANKER_POSTMARK__PORTS": "2525",
        "FRANKER_POSTMARK__AUTH": '["LOGIN", "PLAIN"]',
        "FRANKER_RETRY__FIRST": "5s",
        "FRANKER_STREAMS": '{"news": {"id": "broadcast", "kind": "broadcast"}}',
        "FRANKER_RULES": '[{"sender": ["news@*"], "stream": "news"}]',
    }
    settings = configured('[listen]\nsmtp = ["127.0.0.1:1"]\n', tmp_path, environ).settings
    assert settings.data_dir == Path("/srv/franker")
    assert [one.address for one in settings.listen.smtp] == ["127.0.0.1:2525", "[::1]:2525"]
    assert settings.listen.max_message_size == 1_000_000
    assert settings.local.from_ == "host@example.com"
    assert settings.local.aliases == {"root": ("a@example.com",)}
    assert settings.redis.password.name == "file /run/pw"
    assert settings.redis.require_durable is False
    assert settings.postmark.ports == (2525,)
    assert settings.postmark.auth == ("LOGIN", "PLAIN")
    assert settings.retry.first == 5.0
    assert settings.streams["news"].id == "broadcast"
    assert settings.rules[0].stream == "news"


def test_a_list_that_begins_with_a_bracketed_address_is_no_json() -> None:
    settings = load(None, {"FRANKER_LISTEN__SMTP": "[::1]:2525"}, searched=()).settings
    assert [one.address for one in settings.listen.smtp] == ["[::1]:2525"]


def test_tables_can_stand_in_a_list_from_the_environment() -> None:
    text = '["127.0.0.1:2525", {"address": "127.0.0.1:2587", "auth": "accept"}]'
    settings = load(None, {"FRANKER_LISTEN__SMTP": text}, searched=()).settings
    assert [one.auth for one in settings.listen.smtp] == ["", "accept"]


def test_the_environment_goes_over_the_file_key_by_key(tmp_path: Path) -> None:
    text = '[retry]\nfirst = "1s"\ncap = "20s"'
    loaded = configured(text, tmp_path, {"FRANKER_RETRY__FIRST": "2s"})
    assert (loaded.settings.retry.first, loaded.settings.retry.cap) == (2.0, 20.0)
    assert loaded.source == f"{tmp_path / 'given.toml'} and FRANKER_RETRY__FIRST"


def test_an_empty_variable_is_none() -> None:
    assert load(None, {"FRANKER_RETRY__FIRST": ""}, searched=()).settings == Settings()


def test_a_fault_from_the_environment_names_its_variable(tmp_path: Path) -> None:
    environ = {
        "FRANKER_RETRY__FIRST": "soon",
        "FRANKER_POSTMARK__PORTS": "587,x",
        "FRANKER_REDIS__PASSWORD": "b7e1c5a0-secret",
        "FRANKER_STREAMS": "b7e1c5a0-secret",
        "FRANKER_RULES": '[{"name": "a", "tag": 5}]',
        "FRANKER_LISTEN__SMPT": "127.0.0.1:25",
        "FRANKER_STREAMS__OUTBOUND__TOKEN": "b7e1c5a0-secret",
    }
    text = fault("", tmp_path, environ)
    assert [line.strip() for line in text.splitlines()[1:]] == [
        "FRANKER_LISTEN__SMPT: no such key; did you mean FRANKER_LISTEN__SMTP?",
        'FRANKER_REDIS__PASSWORD: JSON, such as {"env": "NAME"}',
        'FRANKER_STREAMS: JSON, such as {"outbound": {"token": {"env": "POSTMARK_SERVER_TOKEN"}}}',
        (
            "FRANKER_STREAMS__OUTBOUND__TOKEN: no such key; all of streams is given as JSON in "
            "FRANKER_STREAMS"
        ),
        'FRANKER_POSTMARK__PORTS: was "x"; a whole number',
        (
            'FRANKER_RETRY__FIRST: was "soon"; a time is text like "30s", "10m" or "48h", above '
            "0 and at most 10 years"
        ),
        "FRANKER_RULES rules.a.tag: was 5; text in quotes",
    ]
    assert "b7e1c5a0" not in text


def test_every_place_has_a_variable_of_its_own() -> None:
    assert read({"FRANKER_WORKER__HTTP": "127.0.0.1:1"}).values == {
        ("worker", "http"): "127.0.0.1:1"
    }
    assert read({"PATH": "/bin", "FRANKERX": "1", "FRANKER_BENCH": "1"}).values == {}


# What is allowed but said.


def test_one_underscore_too_few_is_said() -> None:
    loaded = load(None, {"FRANKER_LISTEN_ALLOW": "10.0.0.0/8"}, searched=())
    assert loaded.notices == (
        "FRANKER_LISTEN_ALLOW is set and has no effect; did you mean FRANKER_LISTEN__ALLOW?",
    )


def test_the_variable_of_a_secret_is_no_mistake() -> None:
    assert load(None, {"FRANKER_REDIS_PASSWORD": "x"}, searched=()).notices == ()


@pytest.mark.parametrize(
    ("text", "notice"),
    [
        (
            '[listen]\nallow = ["127.0.0.0/8", "10.1.0.0/16"]',
            "listen.allow: 10.1.0.0/16 may submit without a password, 65,536 addresses",
        ),
        (
            '[listen]\nallow = ["192.0.2.7"]',
            "listen.allow: 192.0.2.7 may submit without a password",
        ),
        (
            '[listen]\nallow = ["::/0"]',
            "listen.allow: ::/0 lets anybody who reaches this host send mail in your name",
        ),
        (
            '[listen]\nsmtp = [{ address = "10.0.0.5:25", allow = ["10.0.0.6"] }]',
            "listen.smtp 10.0.0.5:25 allow: 10.0.0.6 may submit without a password",
        ),
        (
            '[listen]\nmax_message_size = "20MB"',
            (
                "listen.max_message_size: above 10MB, where Postmark refuses; such mail would be "
                "kept and then die"
            ),
        ),
        (
            '[redis]\nurl = "redis://redis.example.com/0"',
            (
                "redis.url: mail and password go to redis.example.com in clear text; "
                "rediss:// encrypts"
            ),
        ),
        (
            '[redis]\nurl = "redis+sentinel://10.0.0.1:26379,10.0.0.2:26379/mail"',
            "redis.url: mail and password go to 10.0.0.1 in clear text; rediss:// encrypts",
        ),
        (
            '[[rules]]\nname = "all"\n[[rules]]\nname = "never"\nsender = ["a@*"]',
            (
                'rules.all: no key selects, so it takes all mail; "never" and what follows is '
                "never reached"
            ),
        ),
        (
            '[notify]\nto = "ops@example.com"',
            "notify.from is not set: notify.to will not be told of mail that dies or is late",
        ),
        (
            '[[rules]]\nname = "payroll"\nowner = "team@example.com"',
            (
                "notify.from is not set: the owner of payroll will not be told of mail that dies "
                "or is late"
            ),
        ),
        (
            (
                '[notify]\nto = "ops@example.com"\nfrom = "franker@other.example"\n'
                '[postmark]\nverified = ["Example.com"]'
            ),
            (
                "notify.from: franker@other.example is not in postmark.verified; Postmark may "
                "refuse the notices"
            ),
        ),
    ],
)
def test_what_is_allowed_but_surprising_is_a_notice(text: str, notice: str, tmp_path: Path) -> None:
    assert configured(text, tmp_path).notices == (notice,)


@pytest.mark.parametrize(
    "text",
    [
        '[notify]\nto = "ops@example.com"\nfrom = "franker@example.com"',
        '[notify]\nto = "ops@example.com"\n[local]\nfrom = "franker@example.com"',
        (
            '[notify]\nto = "ops@example.com"\nfrom = "franker@EXAMPLE.com"\n'
            '[postmark]\nverified = ["Example.com"]'
        ),
    ],
)
def test_nothing_is_said_where_notices_can_be_sent(text: str, tmp_path: Path) -> None:
    assert configured(text, tmp_path).notices == ()


@pytest.mark.parametrize(
    "url",
    [
        "rediss://redis.example.com/0",
        "redis://127.0.0.1:6379/0",
        "redis://localhost/0",
        "unix:///run/redis.sock",
        "redis+sentinel://127.0.0.1:26379,10.0.0.2:26379/mail",
    ],
)
def test_redis_on_this_host_or_over_tls_needs_no_notice(url: str, tmp_path: Path) -> None:
    assert configured(f'[redis]\nurl = "{url}"', tmp_path).notices == ()


@pytest.mark.parametrize(
    "url",
    [
        "redis://:b7e1c5a0/x@redis.example.com/0",
        "http://b7e1c5a0:y@redis.example.com",
        "redis:b7e1c5a0@redis.example.com",
        "redis://redis.example.com/0?password=b7e1c5a0",
    ],
)
def test_a_password_in_the_address_of_redis_is_refused_and_not_shown(
    url: str, tmp_path: Path
) -> None:
    text = fault(f'[redis]\nurl = "{url}"', tmp_path)
    assert "redis.url: " in text
    assert "b7e1c5a0" not in text


@pytest.mark.parametrize(
    "url",
    [
        "redis.example.com:6379",
        "http://redis.example.com",
        "redis://",
        "redis://redis.example.com:66666/0",
        "redis://redis.example.com:x/0",
        "redis://one.example.com,two.example.com/0",
        "redis+sentinel://one.example.com:26379",
        "redis+sentinel://one.example.com,two.example.com:x/mail",
        "unix://relative.sock",
    ],
)
def test_an_address_of_redis_that_cannot_work_is_a_fault(url: str, tmp_path: Path) -> None:
    text = fault(f'[redis]\nurl = "{url}"', tmp_path)
    assert f'redis.url: was "{url}"; empty for a private server, or redis://HOST:PORT/0' in text


@pytest.mark.parametrize(
    "url",
    [
        "rediss://franker@redis.example.com:6380/2?ssl_cert_reqs=required",
        "redis://[::1]:6379",
        "unix:///run/redis/redis.sock?db=1",
        "rediss+sentinel://one.example.com,two.example.com:26380/mail/1",
    ],
)
def test_an_address_of_redis_may_have_any_of_its_parts(url: str, tmp_path: Path) -> None:
    assert configured(f'[redis]\nurl = "{url}"', tmp_path).settings.redis.url == url


def test_a_rule_named_like_an_address_is_a_fault_since_metrics_show_it(tmp_path: Path) -> None:
    assert "rules.bob@example.com.name: " in fault('[[rules]]\nname = "bob@example.com"', tmp_path)


def test_control_characters_in_a_key_never_reach_the_terminal(tmp_path: Path) -> None:
    text = fault('[listen]\n"a\\u001b[31m" = 1\nhttp = "\\u001b[2J"', tmp_path)
    assert "\x1b" not in text


def test_mail_of_this_host_cannot_be_sent_to_this_host(tmp_path: Path) -> None:
    file = tmp_path / "franker.toml"
    file.write_text(f'[local]\npostmaster = "ops@{os.uname().nodename.upper()}"\n')
    with pytest.raises(ConfigError, match=r"local\.postmaster: .* is a name of this host"):
        load(file, {})


def test_a_journal_that_goes_on_where_the_private_redis_stops_is_a_notice(tmp_path: Path) -> None:
    low = '[journal]\ndisk_floor = "50MB"'
    [notice] = configured(low, tmp_path).notices
    assert notice.startswith("journal.disk_floor: 50MB is below the 100MB")
    assert configured('[journal]\ndisk_floor = "100MB"', tmp_path).notices == ()
    assert configured(f'{low}\n[redis]\nurl = "rediss://h"', tmp_path).notices == ()
