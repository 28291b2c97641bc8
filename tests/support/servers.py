"""PostgreSQL, an S3-type server and an MLflow server as in compose.yaml; each can be killed and started again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
S3 = {
    "AWS_ACCESS_KEY_ID": "S3RVER",
    "AWS_SECRET_ACCESS_KEY": "S3RVER",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",  # s3rver is older than the checksums in trailers
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}
WAIT = 300  # seconds for a server to answer, on a machine that does much else


def missing():
    """What these servers need and this machine lacks, in words; "" where nothing is missing."""
    needed = {"PostgreSQL": postgres_programs(), "npm": shutil.which("npm")}
    return ", ".join(name for name, there in needed.items() if not there)


def postgres_programs():
    """The folder of Debian's PostgreSQL."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """A program that listens on a port of 127.0.0.1."""

    def __init__(self, folder, health=""):
        self.folder, self.port, self.health = folder, free_port(), health
        self.process = None
        folder.mkdir(parents=True, exist_ok=True)

    def command(self):
        raise NotImplementedError

    def start(self, **environment):
        self.environment = {**os.environ, **environment}
        self.again()
        return self

    def again(self):
        """Start it, and wait until it answers."""
        with open(self.folder.with_suffix(".log"), "ab") as log:
            self.process = subprocess.Popen(
                self.command(), env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if not self.health:
                    return socket.create_connection(("127.0.0.1", self.port), 5).close()
                return urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.health}", timeout=5).close()
            except OSError:
                time.sleep(0.2)
        raise AssertionError(self.folder.with_suffix(".log").read_text()[-3000:])

    def kill(self):
        """End it and all its processes at once, as a power cut would."""
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Postgres(Server):
    """A database `mlflow` of the user `mlflow`. PostgreSQL does not run as root; there it runs as the user postgres."""

    def __init__(self):
        super().__init__(Path(tempfile.mkdtemp(prefix="condmix-postgres-")))  # pytest's own folders are root's alone
        self.data = self.folder / "data"
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        subprocess.run(
            self._user(postgres_programs() / "initdb", "-D", self.data, "-U", "mlflow", "--auth=trust"),
            check=True, capture_output=True,
        )  # fmt: skip

    def command(self):
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # of the killed one
        return self._user(
            postgres_programs() / "postgres", "-D", self.data, "-p", self.port, "-h", "127.0.0.1", "-k", self.data
        )

    def again(self):
        super().again()
        for _ in range(WAIT):  # it listens before it is ready
            if not self._client("pg_isready"):
                break
            time.sleep(1)
        self._client("createdb", "mlflow")  # fails where it is there already

    def remove(self):
        self.kill()
        shutil.rmtree(self.folder)
        self.folder.with_suffix(".log").unlink()

    def _client(self, program, *more):
        server = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "mlflow"]
        return subprocess.run([postgres_programs() / program, *server, *more], capture_output=True).returncode

    def _user(self, *command):
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
        return [*user, *map(str, command)]


class Store(Server):
    """s3rver, which keeps objects as files, with the buckets `mlflow` and `dvc`. npm installs it once, in a cache."""

    def __init__(self, folder):
        super().__init__(folder / "store")
        installed = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "condmix", "s3rver")
        self.program = installed / "node_modules" / ".bin" / "s3rver"
        if not self.program.exists():
            installed.mkdir(parents=True, exist_ok=True)
            subprocess.run(["npm", "install", "--prefix", installed, "s3rver@3.7.1"], check=True, capture_output=True)
        # It does not list a folder that holds nothing but folders, which MLflow then does not download.
        listing = installed / "node_modules" / "s3rver" / "lib" / "stores" / "filesystem.js"
        wrong = "beneath a common prefix\n          return false;"
        listing.write_text(listing.read_text().replace(wrong, wrong.replace("false", "true")))

    def command(self):
        buckets = [option for bucket in ("mlflow", "dvc") for option in ("--configure-bucket", bucket)]
        where = ["--directory", str(self.folder), "--address", "127.0.0.1", "--port", str(self.port)]
        return [self.program, *where, *buckets]

    @property
    def access(self):
        """The environment of a client."""
        return {**S3, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}


class Mlflow(Server):
    """`mlflow server` with compose.yaml's flags."""

    def __init__(self, folder, postgres, store):
        super().__init__(folder / "mlflow", "/health")
        self.postgres, self.store = postgres, store

    def start(self):
        return super().start(**self.store.access, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false")

    def command(self):
        flags = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["mlflow"]["command"][1:]
        database = f"postgresql+psycopg2://mlflow@127.0.0.1:{self.postgres.port}/mlflow"
        here = ["--host=127.0.0.1", f"--port={self.port}", f"--backend-store-uri={database}"]  # the last one counts
        return [sys.executable, "-m", "mlflow", *flags, *here]

    @property
    def uri(self):
        return f"http://127.0.0.1:{self.port}"
