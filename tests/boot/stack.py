"""The compose file's services on an engine, with the stand-in for Postmark outside of them."""

import json
import os
import smtplib
from pathlib import Path

from proxy.sandbox.account import TOKEN
from tests.boot.engine import IMAGE, WATCHER, Engine
from tests.support.far_end import BackgroundFarEnd
from tests.support.processes import ROOT, free_port
from tests.support.waiting import wait_for

PROJECT = "frankertest"
USER = 10025
GATEWAY = "10.231.201.1"
SOON_S = 90.0
PORTS = (587, 2525, 25)

SPEAK = """
import smtplib, sys
client = smtplib.SMTP()
code, text = client.connect(sys.argv[1], 25)
print(code, text.decode())
if code == 220:
    client.sendmail("app@example.com", ["inside@example.net"], b"Subject: y\\r\\n\\r\\n")
"""


class Stack:
    """The compose file's services, relaying to a far end that they believe to be Postmark."""

    def __init__(self, engine: Engine, folder: Path, far_end: BackgroundFarEnd) -> None:
        self.engine = engine
        self.far_end = far_end
        self.smtp_port = free_port()
        self.prometheus_port, self.alertmanager_port = free_port(), free_port()
        self.trial_port = free_port()
        token = folder / "token"
        token.write_text(f"{TOKEN}\n")
        token.chmod(0o400)
        os.chown(token, USER, USER)
        authority = folder / "ca.pem"
        authority.write_bytes(far_end.ca_file.read_bytes())
        authority.chmod(0o444)
        folder.chmod(0o755)
        over = {
            "services": {
                "worker": {
                    "environment": {
                        "FRANKER_POSTMARK__CA_FILE": "/run/ca.pem",
                        # Nobody is asked what became of mail, least of all the real Postmark.
                        "FRANKER_POSTMARK__API_URL": "http://127.0.0.1:9",
                        "FRANKER_POSTMARK__ASK_FOR": "8s",
                    },
                    "volumes": [f"{authority}:/run/ca.pem:ro"],
                    "extra_hosts": [f"smtp.postmarkapp.com:{GATEWAY}"],
                },
                "alertmanager": {"entrypoint": ["prometheus-alertmanager"]},
            },
            "networks": {
                "out": {"ipam": {"config": [{"subnet": "10.231.201.0/24", "gateway": GATEWAY}]}}
            },
        }
        self._over = folder / "over.yml"
        self._over.write_text(json.dumps(over))  # which is YAML, too
        self._environ = {
            "COMPOSE_PROJECT_NAME": PROJECT,
            "FRANKER_IMAGE": IMAGE,
            "FRANKER_SMTP_PORT": str(self.smtp_port),
            "FRANKER_TRIAL_PORT": str(self.trial_port),
            "FRANKER_SUBNET": "10.231.200.0/24",
            "POSTMARK_SERVER_TOKEN_FILE": str(token),
            "PROMETHEUS_IMAGE": WATCHER,
            "PROMETHEUS_PORT": str(self.prometheus_port),
            "ALERTMANAGER_IMAGE": WATCHER,
            "ALERTMANAGER_PORT": str(self.alertmanager_port),
        }

    def compose(self, *arguments: str) -> str:
        files = [f"--file={ROOT / 'docker-compose.yml'}", f"--file={self._over}"]
        return self.engine.compose(*files, *arguments, environ=self._environ)

    def up(self, *arguments: str, workers: int = 2) -> None:
        self.compose("up", "--detach", "--no-build", f"--scale=worker={workers}", *arguments)

    def containers(self, service: str) -> list[str]:
        labels = {"project": PROJECT, "service": service, "oneoff": "False"}
        chosen = [f"--filter=label=com.docker.compose.{k}={v}" for k, v in labels.items()]
        return self.engine.docker("ps", "--all", "--quiet", *chosen).split()

    def until_healthy(self, service: str, count: int = 1) -> None:
        def healthy() -> bool:
            states = [self.engine.inspect(one)["State"] for one in self.containers(service)]
            good = [state for state in states if state.get("Health", {}).get("Status") == "healthy"]
            return len(good) >= count

        try:
            wait_for(healthy, 2 * SOON_S, f"{count} healthy of {service}", step=0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail=40")

    def send(self, recipient: str, port: int = 0) -> None:
        with smtplib.SMTP("127.0.0.1", port or self.smtp_port, timeout=30) as client:
            content = f"From: app@example.com\r\nTo: {recipient}\r\nSubject: x\r\n\r\nHello\r\n"
            client.sendmail("app@example.com", [recipient], content)

    def arrives(self, recipient: str, timeout: float = SOON_S) -> None:
        try:
            wait_for(lambda: self.far_end.to(recipient), timeout, f"mail to {recipient}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def speak(self, network: str, host: str) -> str:
        """Return what a container in `network` is told when it connects to port 25 of `host`."""
        where = [f"--network={PROJECT}_{network}", "--entrypoint=python3"]
        return self.engine.docker("run", "--rm", *where, IMAGE, "-c", SPEAK, host)
