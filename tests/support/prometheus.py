"""A real Prometheus for tests, on loopback: it scrapes our processes, and answers questions.

Its rules are ours in a hurry: hours and days become seconds, so that a test can wait for them.
"""

import json
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from tests.support.processes import ROOT, free_port, http_get
from tests.support.waiting import wait_for

RULES = sorted((ROOT / "monitoring/rules").glob("*.yml"))
SITE = "test"

Samples: TypeAlias = list[tuple[Mapping[str, str], float]]

_INTERVAL = "500ms"
_HURRIED = {
    "1h": "3s",
    "15m": "4s",
    "5m": "4s",
    "1d": "8s",
    "1w": "11s",
}
_AGE = ("> 900", "> 3")


def missing_prometheus() -> str:
    """Return why there can be none here, "" when there can."""
    lacking = [name for name in ("prometheus", "promtool") if shutil.which(name) is None]
    return f"not on this host: {', '.join(lacking)} (package prometheus)" if lacking else ""


def alerts_of(text: str) -> list[str]:
    """Return the names of the alerts in the text of a rule file."""
    return re.findall(r"(?m)^ *- alert: (\w+)$", text)


def hurried(text: str) -> str:
    """Return a rule file's text with short times: what is awaited is seconds away.

    Fails when a time of another length than those known here has come into the rules.
    """
    text = re.sub(r"(?m)^ *for: \w+\n", "", text)
    lengths = r"(?<=\[)\w+(?=\])|(?<=offset )\w+"
    return re.sub(lengths, lambda found: _HURRIED[found[0]], text).replace(*_AGE)


def _alerts(alert: str, labels: Mapping[str, str]) -> str:
    wanted = {"alertname": alert, "alertstate": "firing", **labels}
    chosen = ", ".join(f'{name}="{value}"' for name, value in wanted.items())
    return f"ALERTS{{{chosen}}}"


class Prometheus:
    """Scrapes `targets` (addresses by job) twice a second, keeping its data in `folder`."""

    def __init__(self, folder: Path, targets: Mapping[str, list[str]]) -> None:
        self._address = f"127.0.0.1:{free_port()}"
        for file in RULES:
            (folder / file.name).write_text(hurried(file.read_text()))
        config = {
            "global": {
                "scrape_interval": _INTERVAL,
                "scrape_timeout": _INTERVAL,
                "evaluation_interval": _INTERVAL,
            },
            "rule_files": [str(folder / file.name) for file in RULES],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": at, "labels": {"site": SITE}}]}
                for job, at in targets.items()
            ],
        }
        file = folder / "prometheus.yml"
        file.write_text(json.dumps(config))  # which is YAML, too
        self._log = folder / "prometheus.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={file}",
                    f"--storage.tsdb.path={folder / 'prometheus'}",
                    f"--web.listen-address={self._address}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_for(self._is_ready, 60, "Prometheus answers")

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()[-4000:]
        try:
            return http_get(self._address, "/-/ready")[0] == 200
        except OSError:
            return False

    def ask(self, expression: str) -> Samples:
        """Return what `expression` is now: labels and value of each series."""
        status, text = http_get(
            self._address, "/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        )
        answer: dict[str, Any] = json.loads(text)
        assert status == 200, f"{expression}: {answer.get('error')}"
        result = answer["data"]["result"]
        if answer["data"]["resultType"] == "scalar":
            return [({}, float(result[1]))]
        return [(one["metric"], float(one["value"][1])) for one in result]

    def firing(self, alert: str, **labels: str) -> Samples:
        """Return the alerts of this name that fire now, those with `labels`."""
        return self.ask(_alerts(alert, labels))

    def fired(self, alert: str, seconds: float, **labels: str) -> Samples:
        """Return those that fire now or have fired within the last `seconds`."""
        lately = f"{max(1, round(seconds * 1000))}ms"
        return self.ask(f"last_over_time({_alerts(alert, labels)}[{lately}])")

    def all_firing(self) -> set[str]:
        """Return the names of all alerts that fire now."""
        return {labels["alertname"] for labels, _ in self.ask('ALERTS{alertstate="firing"}')}

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
