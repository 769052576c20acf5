"""What is deployed and what CI runs is valid, holds no secret, and is explained."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from compose_stack import Missing, interpolate, read, read_env_file

from bnpipe.demo.secrets import write_env

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yaml"
SHELL_SCRIPTS = sorted([*ROOT.glob("deploy/*.sh"), *ROOT.glob("requirements/*.sh"), ROOT / ".ci" / "run"])


def run(*command: object) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    """What `bnpipe env` writes, as compose reads it."""
    write_env(tmp_path / ".env", example=ROOT / ".env.example")
    return read_env_file(tmp_path / ".env")


@pytest.mark.parametrize(
    ("schema", "pattern"),
    [("vendor.compose-spec", "docker-compose.yaml"), ("vendor.github-workflows", ".github/workflows/*.yaml")],
)
def test_the_file_fits_its_specification(schema: str, pattern: str):
    """The compose file and the workflows are what their readers accept."""
    files = sorted(ROOT.glob(pattern))
    assert files
    done = run(Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", schema, *files)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"} or sys.platform != "linux", reason="no such binary")
def test_the_dockerfile_has_no_known_mistake():
    """Hadolint finds nothing, not even style."""
    done = run(Path(sys.executable).with_name("hadolint"), "deploy/Dockerfile")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_parse_and_stop_at_the_first_failure(script: Path):
    """Each script is valid for the shell that its first line names, and does not go on after an error."""
    text = script.read_text()
    shell = "bash" if "bash" in text.splitlines()[0] else "sh"
    assert run(shell, "-n", script).returncode == 0
    assert re.search(r"^set -eu", text, re.MULTILINE)


def test_images_are_pinned_to_a_patch_release():
    """Neither `latest` nor a tag that moves."""
    compose = interpolate(yaml.safe_load(COMPOSE.read_text().replace(":?", ":-")), {})
    images = {service["image"] for service in compose["services"].values() if "build" not in service}
    images |= set(re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE))
    assert len(images) == 4
    for image in images:
        debian, patch = r"[a-z]+:\d+\.\d+(\.\d+)?-[a-z-]+", r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+"
        assert re.fullmatch(f"{debian}|{patch}", image), image


def test_no_service_starts_without_its_secrets():
    """Every secret of the template is required by the compose file, and nothing else is."""
    required = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()))
    assert required == {name for name, value in read_env_file(ROOT / ".env.example").items() if not value}
    with pytest.raises(Missing, match=r"run \"bnpipe env .env\""):
        read(COMPOSE, {})


def test_the_template_explains_every_variable():
    """A variable is in .env.example with the default that the compose file gives it, and none is there in vain."""
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE.read_text()))
    shown = dict(re.findall(r"(?m)^#([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text()))
    assert used.keys() == shown.keys()
    host_side = {"BNPIPE_CONFIG", "BNPIPE_DATA"}
    assert {name: shown[name] for name in used if name not in host_side} == {
        name: default for name, default in used.items() if name not in host_side
    }


def test_services_heal_and_stay_private(variables: dict[str, str]):
    """A service restarts and has a health check, or ends by itself; ports are published on this machine only."""
    raw = interpolate(yaml.safe_load(COMPOSE.read_text()), variables)["services"]
    for name, service in raw.items():
        if service["restart"] == "no":
            continue
        assert service["restart"] == "unless-stopped", name
        assert service["healthcheck"]["test"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
    airflow = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
    for name in ("mlflow", *airflow, "serve", "prometheus", "grafana"):
        assert raw[name]["cap_drop"] == ["ALL"]
    assert re.search(r"^USER \d+:\d+$", (ROOT / "deploy/Dockerfile").read_text(), re.MULTILINE)


def test_airflows_services_share_their_keys(variables: dict[str, str]):
    """A token signed by one component must be accepted by the next, and a connection encrypted by one be readable."""
    services = [service for name, service in read(COMPOSE, variables).items() if name.startswith("airflow-")]
    assert len(services) == 5
    for key in ("CORE__FERNET_KEY", "API_AUTH__JWT_SECRET", "API__SECRET_KEY", "DATABASE__SQL_ALCHEMY_CONN"):
        assert len({service.environment[f"AIRFLOW__{key}"] for service in services}) == 1
    assert all(service.environment["MLFLOW_DISABLE_TELEMETRY"] == "true" for service in services)


def test_a_path_named_by_the_compose_file_is_in_the_repository(variables: dict[str, str]):
    """What commands and health checks name under BNPIPE_HOME is copied into the image."""
    home = "/opt/bnpipe/"
    words = [
        word
        for service in read(COMPOSE, variables).values()
        for word in (*service.command, *(service.health or ()), *service.environment.values())
        if word.startswith(home)
    ]
    assert len(words) > 10
    for word in words:
        assert (ROOT / word.removeprefix(home)).exists(), word
    copied = re.findall(r"(?m)^COPY (\w+)/ /opt/bnpipe/", (ROOT / "deploy/Dockerfile").read_text())
    assert {word.removeprefix(home).split("/")[0] for word in words} <= set(copied)


def test_each_image_is_built_from_a_lock_that_is_there():
    """LOCK names a file of requirements, another for each image."""
    services = yaml.safe_load(COMPOSE.read_text())["services"].values()
    locks = {service["image"]: service["build"]["args"]["LOCK"] for service in services if "build" in service}
    assert len(set(locks.values())) == len(locks) == 3
    for lock in locks.values():
        assert (ROOT / "requirements" / f"{lock}.txt").exists(), lock


_ONLY_OF_THE_LOCK = """
import re, sys
from importlib.metadata import packages_distributions
from pathlib import Path

plain = lambda name: re.sub("[-_.]+", "-", name).lower()
locked = {plain(name) for name in re.findall(r"(?m)^([\\w.-]+)==", Path(sys.argv[1]).read_text())} | {"bnpipe"}
strange = {module for module, dists in packages_distributions().items() if not locked & set(map(plain, dists))}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in strange:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Refuse())
from bnpipe import cli
from bnpipe.answers import compact
from bnpipe.config.serving import TracingSpec
from bnpipe.registry import Registry
from bnpipe.serving import commands, follower, server, worker
from bnpipe.serving.metrics import PrometheusObserver
from bnpipe.serving.tracing import make_tracing

Registry(sys.argv[2]).standings()
make_tracing(TracingSpec(endpoint="http://127.0.0.1:9/v1/traces"), "worker-1").close()
assert PrometheusObserver().expose()
assert "airflow" in strange and "mlflow" not in strange
"""


def test_the_service_runs_on_its_own_lock(mlflow_uri: str):
    """What the image of the service is built from holds all that supervisor, follower and workers import."""
    done = run(sys.executable, "-c", _ONLY_OF_THE_LOCK, "requirements/serve.txt", mlflow_uri)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_service_may_only_read_the_registry(variables: dict[str, str]):
    """What listens to applications holds nobody's password but its own, which is not an administrator's."""
    serve = read(COMPOSE, variables)["serve"]
    assert serve.environment["MLFLOW_TRACKING_PASSWORD"] == variables["MLFLOW_READER_PASSWORD"]
    own = {"MLFLOW_READER_PASSWORD", "BNPIPE_METRICS_KEY"}
    others = {value for name, value in variables.items() if name not in own and len(value) > 20}
    assert not others & set(serve.environment.values())


def test_prometheus_and_grafana_tell_nobody(variables: dict[str, str]):
    """Nothing phones home, nobody enters without a login, and the key for the metrics is in a file, in no command."""
    raw = interpolate(yaml.safe_load(COMPOSE.read_text()), variables)
    grafana, prometheus = raw["services"]["grafana"], raw["services"]["prometheus"]
    for switch in ("REPORTING_ENABLED", "CHECK_FOR_UPDATES", "CHECK_FOR_PLUGIN_UPDATES"):
        assert grafana["environment"][f"GF_ANALYTICS_{switch}"] == "false"
    assert grafana["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == variables["GRAFANA_ADMIN_PASSWORD"]
    assert raw["secrets"]["metrics-key"] == {"environment": "BNPIPE_METRICS_KEY"}
    assert prometheus["secrets"] == ["metrics-key"]
    assert variables["BNPIPE_METRICS_KEY"] not in str(prometheus)
    config = yaml.safe_load((ROOT / "config/prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    assert config["authorization"] == {"credentials_file": "/run/secrets/metrics-key"}
    assert config["static_configs"] == [{"targets": ["serve:8800"]}]
    assert config["job_name"] == "bnpipe"  # the rules ask for it
    assert "--port=8800" in read(COMPOSE, variables)["serve"].command


def test_git_ignores_the_real_env_file():
    """The file with the secrets can't be committed by accident."""
    if shutil.which("git") and (ROOT / ".git").exists():
        assert run("git", "check-ignore", "-q", ".env").returncode == 0
        assert run("git", "check-ignore", "-q", ".env.example").returncode == 1
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()
    assert "!.env" not in (ROOT / ".dockerignore").read_text()
