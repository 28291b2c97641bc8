"""The Dockerfile built for real, by buildah without an engine, on stand-ins for its base images: `make test-slow`.

It needs root, and Debian's packages buildah and debootstrap. Both stand-ins are a minimal Debian with Python and pip;
that of NVIDIA's image has a user `ubuntu` of UID 1000, as that one does. They download from where this machine's apt
does; what a build needs to reach mirrors of its own (`--volume /etc/pip.conf:/etc/pip.conf:ro`) are options of
`buildah build` in CONDMIX_BUILDAH_OPTIONS. A folder with such a Debian, CONDMIX_BASE_IMAGE, saves making it. The stage
`train` holds 7 GB, of which buildah keeps several copies while it commits them: free 50 GB, some of them in /var/tmp.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from dvc_project import TINY

ROOT = Path(__file__).parents[2]
BASES = re.findall(r"^FROM (\S+:\S+) AS", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
PACKAGES = "ca-certificates,python3,python3-venv,python3-pip"
SETUP = """
rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
ln -sf python3 /usr/bin/python
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("buildah") or not shutil.which("debootstrap"),
        reason="needs root, buildah and debootstrap",
    ),
]


def run(*command, **options):
    """What a command prints; its last lines where it fails."""
    done = subprocess.run(
        list(map(str, command)), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options
    )
    assert done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """buildah with a storage of its own."""
    folder = tmp_path_factory.mktemp("containers")
    yield ["buildah", "--root", folder / "root", "--runroot", folder / "run"]
    run("buildah", "--root", folder / "root", "--runroot", folder / "run", "rm", "--all")
    run("buildah", "--root", folder / "root", "--runroot", folder / "run", "rmi", "--all", "--force")


@pytest.fixture(scope="module")
def bases(store, tmp_path_factory):
    """Both base images, under the names by which the Dockerfile knows them."""
    folder = os.environ.get("CONDMIX_BASE_IMAGE")
    if not folder:
        folder = tmp_path_factory.mktemp("debian")
        mirrors = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)").split("\n")
        mirror, release = next(line.split() for line in mirrors if line and "security" not in line)
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", release, folder, mirror)
    run("chroot", folder, "sh", "-c", SETUP)
    container = run(*store, "from", "scratch").strip()
    run(*store, "copy", "--quiet", container, folder, "/")
    for name in BASES:
        if "ubuntu" in name:
            run(*store, "run", "--isolation=chroot", container, "useradd", "--create-home", "--uid", "1000", "ubuntu")
        run(*store, "commit", "--quiet", container, f"docker.io/{name}" if "/" in name else f"docker.io/library/{name}")


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """The repository's files as git has them, with params.yaml on a world of 60 scenes."""
    folder = tmp_path_factory.mktemp("context")
    names = run("git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "-z").split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "conf" / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    params = folder / "params.yaml"
    params.write_text(yaml.safe_dump(yaml.safe_load(params.read_text()) | {"profile": "tiny"}))
    return folder


@pytest.fixture(scope="module")
def built(store, bases, context):
    """Builds a stage; returns what runs a command in it, as the image's own user."""

    def build(stage):
        options = shlex.split(os.environ.get("CONDMIX_BUILDAH_OPTIONS", ""))
        target = ["build", "--isolation=chroot", "--pull=never", "--layers", "--target", stage, "--tag", stage]
        run(*store, *target, *options, context)
        container = run(*store, "from", "--pull=never", f"localhost/{stage}").strip()
        return lambda *command: run(*store, "run", "--isolation=chroot", container, *command)

    return build


def test_the_server_runs_as_a_user_with_its_drivers(built):
    inside = built("mlflow")
    assert inside("id", "-u").strip() == "1000"
    inside("python3", "-c", "import boto3, mlflow, psycopg2")
    assert "--serve-artifacts" in inside("mlflow", "server", "--help")


def test_training_has_the_commands_the_pipeline_and_the_tests(built):
    inside = built("train")
    assert inside("id", "-u").strip() == "1000"
    assert "experiments" in inside("condmix", "--help")
    ran = inside("entrypoint.sh", "dvc", "repro", "check", "fetch", "prepare", "captions")
    assert all(f"Running stage '{stage}'" in ran for stage in ("check", "fetch", "prepare", "captions"))
    collected = inside("env", "PYTEST_ADDOPTS=--collect-only", "make", "test")
    assert re.search(r"\d+ tests collected", collected) and "error" not in collected.rpartition("\n\n")[2]
