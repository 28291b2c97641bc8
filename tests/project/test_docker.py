"""What can be known of the container files without an engine: they name what exists, and leak nothing."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "compose.yaml").read_text()


def env_example():
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_what_the_dockerfile_copies_exists():
    copied = re.findall(r"^COPY (?:--\S+ )*(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert "constraints.txt" in sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_git_knows_who_commits_experiments():
    configured = re.findall(r"git config --system (user\.\w+) \S+", (ROOT / "Dockerfile").read_text())
    assert configured == ["user.name", "user.email"]


def test_compose_builds_stages_that_the_dockerfile_has():
    stages = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    services = yaml.safe_load(COMPOSE)["services"].values()
    assert {service["build"]["target"] for service in services if "build" in service} <= set(stages)
    assert stages[-1] == "train"  # what a plain `docker build .` makes


def test_secrets_have_no_default_and_are_never_carried_along():
    demanded = set(re.findall(r"\$\{(\w+):\?", COMPOSE))
    example = env_example()
    assert demanded == {"POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
    assert all(example[name] == "" for name in demanded)
    assert set(re.findall(r"\$\{(\w+)", COMPOSE)) == set(example)
    assert ".env" in (ROOT / ".dockerignore").read_text().splitlines()


def test_ports_are_published_on_loopback_only_and_the_stores_not_at_all():
    services = yaml.safe_load(COMPOSE)["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert list(published) == ["mlflow"] and all(port.startswith("127.0.0.1:") for port in published["mlflow"])
    assert services["postgres"]["networks"] == services["store"]["networks"] == ["stores"]


def test_services_wait_for_health_checks_that_exist():
    services = yaml.safe_load(COMPOSE)["services"]
    for service in services.values():
        for name, wait in service.get("depends_on", {}).items():
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in services[name]


def test_each_stage_that_runs_as_a_user_says_which():
    """A stage inherits no ARG but with Docker's own builder."""
    for stage in re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]:
        assert "USER $UID" not in stage or stage.index("ARG UID=1000") < stage.index("USER $UID")
