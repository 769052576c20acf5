"""What an alert says, and that it arrives, or fails without harm and without showing a secret."""

from __future__ import annotations

import logging
import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from alert_servers import MailServer, Webhook, running

from bnpipe import alerts
from bnpipe.alerts import Alert, Change, drift_alert, send
from bnpipe.drift import DriftReport, NodeDrift, RowDrift
from bnpipe.release import DriftDecision

ALERT = Alert(
    "shop",
    "drift",
    "shop: 1 of 4 CPDs changed, refit of back",
    reason="It changed.",
    action="refit",
    changes=(Change("back", 0.3, 0.001, "weather=wet", "2026-02-01"),),
    link="http://airflow/run",
)


@pytest.fixture
def webhook():
    """A webhook that listens."""
    with running(Webhook()) as server:
        yield server


@pytest.fixture
def mail():
    """A mail server that listens, without TLS."""
    with running(MailServer()) as server:
        yield server


@pytest.fixture
def log_of_alerts(caplog):
    """What is written into the log."""
    caplog.set_level(logging.INFO, "bnpipe.alerts")
    return caplog


def row(configuration: dict[str, str], *, changed: bool) -> RowDrift:
    """One row of a CPD."""
    return RowDrift(configuration, 0.2, 80, 900, 0.001, 0.4, (0.3, 0.5), (0.9, 0.1), (0.5, 0.5), changed)


@pytest.fixture
def report():
    """Two of three CPDs changed, `back` most surely."""
    rows = (row({"weather": "wet", "basket": "large"}, changed=True), row({"weather": "dry"}, changed=False))
    nodes = {
        "weather": NodeDrift(
            "weather", known=True, p=0.04, effect=0.1, flagged=True, changed_rows=(row({}, changed=True),)
        ),
        "age": NodeDrift("age", known=True, p=0.9),
        "back": NodeDrift(
            "back", known=True, p=0.001, effect=0.31, flagged=True, changed_rows=rows, change_point="2026-02-03"
        ),
    }
    return DriftReport(nodes, {}, 0.05, 0.02, False, 56, 7, 4000, "2026-02-01", "2026-02-07", 999, 0, "hash")


def test_a_drift_alert_names_model_nodes_effects_action_and_link(report):
    """In this order, the surest change first; a root has no configuration to be named."""
    decision = DriftDecision("refit", False, "The graph still fits.", families=("back", "weather"), alert=True)
    alert = drift_alert("shop", decision, report, note="Training was started.", link="http://airflow/run")
    assert alert.text.splitlines() == [
        "shop: 2 of 3 CPDs changed, refit of back, weather",
        "back: total variation 0.31, p 0.001, most at weather=wet, basket=large, since 2026-02-03",
        "weather: total variation 0.10, p 0.04",
        "The graph still fits. Training was started.",
        "http://airflow/run",
    ]


@pytest.mark.parametrize(
    ("decision", "told"),
    [
        (DriftDecision("refit", True, "", families=("back",)), "2 of 3 CPDs changed, advised: refit of back"),
        (DriftDecision("roll back", False, "", to=3), "2 of 3 CPDs changed, roll back to version 3"),
        (DriftDecision("relearn", True, ""), "2 of 3 CPDs changed, advised: learn the graph anew"),
        (DriftDecision("nothing", False, ""), "2 of 3 CPDs changed, nothing is done"),
    ],
)
def test_what_is_done_and_what_is_only_advised_read_differently(report, decision, told):
    """Nobody may take advice for an act."""
    assert drift_alert("shop", decision, report).headline == f"shop: {told}"


def test_what_came_to_nothing_is_not_told_as_done(report):
    """The champion moved meanwhile; bad data are held whether or not something was done."""
    decision = DriftDecision("roll back", False, "It is worse.", to=3, alert=True)
    alert = drift_alert("shop", decision, report, done=False, note="The champion is another one by now.")
    assert alert.headline == "shop: 2 of 3 CPDs changed, not done: roll back to version 3"
    hold = drift_alert("shop", DriftDecision("hold", False, ""), None, done=False)
    assert "not done" not in hold.headline


def test_bad_data_are_told_without_a_report():
    """Nothing was compared, so no CPD is counted."""
    alert = drift_alert("shop", DriftDecision("hold", False, "Half of the columns are missing.", alert=True), None)
    assert alert.headline == "shop: the live data are held as bad and not learned"


def test_a_long_list_of_changes_is_cut(report):
    """A text stays short; the JSON has them all."""
    alert = Alert("shop", "drift", "shop: x", changes=tuple(Change(f"n{k}", 0.1, 0.01) for k in range(30)))
    assert len(alert.text.splitlines()) == 12
    assert alert.text.endswith("and 20 more")
    assert len(alert.to_dict()["changes"]) == 30


def test_an_alert_is_one_headline_without_secrets():
    """Line breaks would forge a header of the mail; a URL in an error may hold a password."""
    alert = Alert("shop", "failure", "shop:\nBcc: x", reason="no answer from postgresql://u:s3cret@host/db")
    assert alert.headline == "shop: Bcc: x"
    assert "s3cret" not in alert.text


def test_the_log_has_every_alert(log_of_alerts):
    """Also where nothing else is set."""
    assert send(ALERT, {}) == ("log",)
    assert ALERT.text in log_of_alerts.text


def test_a_webhook_gets_json_with_the_text_that_chats_show(webhook):
    """And the same as fields, for programs."""
    assert send(ALERT, {"BNPIPE_ALERT_WEBHOOK": f"{webhook.address}/hook/s3cret"}) == ("log", "webhook")
    [posted] = webhook.posted
    assert posted["text"] == ALERT.text
    assert (posted["model"], posted["kind"], posted["action"], posted["link"]) == ("shop", "drift", "refit", ALERT.link)
    assert posted["changes"] == [
        {"node": "back", "effect": 0.3, "p": 0.001, "where": "weather=wet", "since": "2026-02-01"}
    ]
    _, path, headers = webhook.requests[0]
    assert path == "/hook/s3cret"
    assert headers["Content-Type"].startswith("application/json")


def test_a_webhook_may_want_a_login(webhook):
    """User and password of the URL become a header."""
    address = webhook.address.replace("//", "//ada:p%40ss@")
    assert send(ALERT, {"BNPIPE_ALERT_WEBHOOK": address}) == ("log", "webhook")
    assert webhook.requests[0][2]["Authorization"] == "Basic YWRhOnBAc3M="


def test_a_redirect_is_not_followed(webhook, log_of_alerts):
    """It would lose the body and may lead anywhere."""
    webhook.status, webhook.location = 302, f"{webhook.address}/elsewhere"
    assert send(ALERT, {"BNPIPE_ALERT_WEBHOOK": f"{webhook.address}/hook"}) == ("log",)
    assert [method for method, *_ in webhook.requests] == ["POST"]
    assert "the server answered 302" in log_of_alerts.text


def closed_port() -> int:
    """Find a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("way", ["BNPIPE_ALERT_WEBHOOK", "BNPIPE_ALERT_SMTP"])
@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:{port}/s3cret",
        "smtp://127.0.0.1:{port}?x=s3cret",
        "file:///s3cret",
        "s3cret",
        "http://[s3cret",
    ],
)
def test_an_address_that_does_not_answer_or_can_not_be_meant_harms_nobody(way, address, log_of_alerts):
    """It is logged by the variable's name, and nothing of the address is shown."""
    environ = {way: address.format(port=closed_port()), "BNPIPE_ALERT_TO": "eve@example.com"}
    assert send(ALERT, environ) == ("log",)
    assert "could not be sent" in log_of_alerts.text
    assert "s3cret" not in log_of_alerts.text


def test_a_server_that_hangs_is_given_up(monkeypatch, log_of_alerts):
    """A task must not wait for an alert."""
    monkeypatch.setattr(alerts, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        assert send(ALERT, {"BNPIPE_ALERT_WEBHOOK": address}) == ("log",)
    assert "TimeoutError" in log_of_alerts.text


def test_a_failing_webhook_does_not_stop_the_mail(webhook, mail, log_of_alerts):
    """Each way is tried on its own."""
    webhook.status = 500
    environ = {
        "BNPIPE_ALERT_WEBHOOK": webhook.address,
        "BNPIPE_ALERT_SMTP": f"smtp://127.0.0.1:{mail.port}",
        "BNPIPE_ALERT_TO": "ada@example.com",
    }
    assert send(ALERT, environ) == ("log", "mail")
    assert "by webhook: the server answered 500" in log_of_alerts.text


def test_a_mail_has_headline_text_and_everybody_in_to(mail):
    """Addresses are separated by commas; the sender is a part of the URL."""
    environ = {
        "BNPIPE_ALERT_SMTP": f"smtp://127.0.0.1:{mail.port}?from=bnpipe@example.com",
        "BNPIPE_ALERT_TO": "ada@example.com, grace@example.com",
    }
    assert send(ALERT, environ) == ("log", "mail")
    [sent] = mail.mails
    assert (sent["Subject"], sent["From"]) == (ALERT.headline, "bnpipe@example.com")
    assert sent["To"] == "ada@example.com, grace@example.com"
    assert sent.get_content().splitlines() == ALERT.text.splitlines()
    assert sum(command.upper().startswith("RCPT TO") for command in mail.commands) == 2


def test_no_password_goes_over_an_open_line(mail, log_of_alerts):
    """A server without TLS gets neither login nor mail."""
    environ = {
        "BNPIPE_ALERT_SMTP": f"smtp://ada:s3cret@127.0.0.1:{mail.port}",
        "BNPIPE_ALERT_TO": "ada@example.com",
    }
    assert send(ALERT, environ) == ("log",)
    assert mail.mails == []
    assert not any(command.startswith("AUTH") for command in mail.commands)
    assert "BNPIPE_ALERT_SMTP has a password" in log_of_alerts.text
    assert "s3cret" not in log_of_alerts.text


def test_a_server_and_addresses_go_together(log_of_alerts):
    """A half of the setting is said, not ignored."""
    assert send(ALERT, {"BNPIPE_ALERT_TO": "ada@example.com"}) == ("log",)
    assert "BNPIPE_ALERT_SMTP and BNPIPE_ALERT_TO go together" in log_of_alerts.text


def test_refused_recipients_are_logged(log_of_alerts):
    """The server knows none of them."""
    with running(MailServer(refuses=True)) as server:
        environ = {"BNPIPE_ALERT_SMTP": f"smtp://127.0.0.1:{server.port}", "BNPIPE_ALERT_TO": "eve@example.com"}
        assert send(ALERT, environ) == ("log",)
    assert "SMTPRecipientsRefused" in log_of_alerts.text


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for localhost that signs itself, with its key in the same file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize("trusted", [True, False])
def test_a_login_goes_only_to_a_server_with_a_trusted_certificate(certificate, trusted, monkeypatch, log_of_alerts):
    """By smtps, with user and password; a certificate that nobody vouches for gets neither."""
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with running(MailServer(tls=tls)) as server:
        environ = {
            "BNPIPE_ALERT_SMTP": f"smtps://ada%40example.com:s3cret@localhost:{server.port}",
            "BNPIPE_ALERT_TO": "grace@example.com",
        }
        assert send(ALERT, environ) == (("log", "mail") if trusted else ("log",))
        assert [sent["From"] for sent in server.mails] == (["ada@example.com"] if trusted else [])
        assert any(command.startswith("AUTH PLAIN") for command in server.commands) == trusted
    assert "s3cret" not in log_of_alerts.text
