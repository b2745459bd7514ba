"""Everything that stands between pgbench and PostgreSQL in the benchmark, and how it is configured.

Penstock is the one of this interpreter; the others are what the machine has, and `Missing` says what to
install. What is not said here is each program's default. A peer's text for the page holds no secret.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from running import Missing, Peer, Place, find_program, free_port, version_of

from proxy.build import banner
from proxy.embedded import EmbeddedPostgres, binaries

POOL = 8
MAX_CLIENTS = 6000
# Where `make newer-pgbouncer` puts one.
BUILT = Path(__file__).parents[2] / "build" / "pgbouncer"


def penstock(
    place: Place, *, pool: str = "", listener: str = "", auth: str = "trust", label: str = ""
) -> Peer:
    """Penstock of this interpreter; ``pool`` and ``listener`` are more lines of TOML for those tables."""
    folder, port, server = place.room("penstock"), free_port(), place.server
    text = (
        f'[listeners.main]\naddress = "127.0.0.1:{port}"\nauth = "{auth}"\n'
        f"max_clients = {MAX_CLIENTS}\n{listener}"
        f'[pools.app]\nbackend = "{server.dsn()}"\nmax = {POOL}\n{pool}'
        '[http]\naddress = "off"\n[log]\nlevel = "warning"\n'
    )
    config = _write(folder / "penstock.toml", text)
    command = (sys.executable, "-m", "proxy", "serve", "--config", str(config))
    shown = _shown(text, place, folder, port)
    return Peer("penstock", label or "penstock", banner(), port, shown, folder, command, as_root=True)


def pgbouncers() -> list[str]:
    """Every PgBouncer that is here, the oldest first; those of BENCH_PGBOUNCER (PATH:PATH) where it is set.

    Two of the same version count once. Missing where there is none.
    """
    named = os.environ.get("BENCH_PGBOUNCER", "")
    folders = [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/usr/local/sbin", "/usr/local/bin"]
    folders.append(str(BUILT))
    candidates = named.split(":") if named else [f"{folder}/pgbouncer" for folder in folders if folder]
    found: dict[tuple[int, ...], str] = {}
    for path in candidates:
        if os.access(path, os.X_OK):
            found.setdefault(version_of([path, "--version"]), path)
    if not found:
        raise Missing("no pgbouncer here: apt-get install --no-install-recommends pgbouncer")
    return [found[version] for version in sorted(found)]


def pgbouncer(
    place: Place,
    *,
    program: str = "",
    mode: str = "transaction",
    pool: int = POOL,
    auth: str = "trust",
    verifiers: bool = False,
    more: str = "",
    label: str = "",
) -> Peer:
    """PgBouncer; ``more`` are lines for its [pgbouncer] section, ``label`` says how this one differs.

    Its file of users has ``verifiers``, so that a login with SCRAM costs it no PBKDF2, or passwords.
    """
    program = program or pgbouncers()[0]
    version = ".".join(map(str, version_of([program, "--version"])))
    folder, port, server = place.room("pgbouncer"), free_port(), place.server
    program = shutil.copy(program, folder)  # whoever runs it may not see where it was built
    secret = scram_verifier(server) if verifiers else server.password
    _write(folder / "users.txt", f'"{server.user}" "{secret}"\n')
    login = f"host=127.0.0.1 port={server.port} dbname={server.database} user={server.user}"
    text = (
        f"[databases]\n{server.database} = {login} password={server.password}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = {auth}\nauth_file = {folder}/users.txt\nlogfile = {folder}/pgbouncer.log\n"
        f"pool_mode = {mode}\ndefault_pool_size = {pool}\nmax_client_conn = {MAX_CLIENTS}\n"
        f"log_connections = 0\nlog_disconnections = 0\nlog_stats = 0\n{more}"
    )
    config = _write(folder / "pgbouncer.ini", text)
    shown = _shown(text, place, folder, port)
    label = f"pgbouncer {version} ({label or f'{mode} mode'})"
    return Peer("pgbouncer", label, version, port, shown, folder, (program, "-q", str(config)))


def direct(place: Place) -> Peer:
    """Nothing in between: each client has a session of its own."""
    return Peer("direct", "direct", "", place.server.port, "", place.folder)


def pgpool(place: Place, *, clients: int, auth: str = "trust") -> Peer:
    """Pgpool-II, with one process and one session for each client, because it knows no other way."""
    path = find_program("pgpool", "pgpool2")
    version = ".".join(map(str, version_of([path, "--version"])))
    folder, port, server = place.room("pgpool"), free_port(), place.server
    _write(folder / "pool_passwd", f"{server.user}:TEXT{server.password}\n")
    _write(folder / "pool_hba.conf", f"host all all 127.0.0.1/32 {auth}\n")
    text = (
        "backend_clustering_mode = 'raw'\n"
        f"listen_addresses = '127.0.0.1'\nport = {port}\nsocket_dir = '{folder}'\n"
        f"pcp_listen_addresses = ''\npcp_port = {free_port()}\npcp_socket_dir = '{folder}'\n"
        f"backend_hostname0 = '127.0.0.1'\nbackend_port0 = {server.port}\nbackend_weight0 = 1\n"
        f"enable_pool_hba = on\npool_passwd = '{folder}/pool_passwd'\n"
        f"# one for each client, and two more\nnum_init_children = {clients + 2}\n"
        "max_pool = 1\nreserved_connections = 0\n"
        "load_balance_mode = off\nhealth_check_period = 0\nsr_check_period = 0\n"
        f"pid_file_name = '{folder}/pgpool.pid'\nlogdir = '{folder}'\n"
    )
    config = _write(folder / "pgpool.conf", text)
    command = (path, "-n", "-f", str(config), "-a", str(folder / "pool_hba.conf"))
    shown = _shown(text, place, folder, port)
    return Peer("pgpool", f"Pgpool-II {version}", version, port, shown, folder, command, stop_signal=2)


def haproxy(place: Place) -> Peer:
    """HAProxy in TCP mode: bytes pass unread, and each client has a session of its own."""
    path = find_program("haproxy", "haproxy")
    version = ".".join(map(str, version_of([path, "-v"])))
    folder, port, server = place.room("haproxy"), free_port(), place.server
    text = (
        f"global\n  maxconn {MAX_CLIENTS}\n"
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
        f"listen postgres\n  bind 127.0.0.1:{port}\n  server one 127.0.0.1:{server.port}\n"
    )
    config = _write(folder / "haproxy.cfg", text)
    shown = _shown(text, place, folder, port)
    command = (path, "-db", "-q", "-f", str(config))
    return Peer("haproxy", f"HAProxy {version} (TCP mode)", version, port, shown, folder, command)


def scram_verifier(server: EmbeddedPostgres) -> str:
    """What the server itself keeps of the user's password."""
    psql = binaries.find_programs() / "psql"
    login = ["-h", server.host, "-p", str(server.port), "-U", server.user, server.database]
    query = f"SELECT rolpassword FROM pg_authid WHERE rolname = '{server.user}'"
    done = subprocess.run(
        [str(psql), "-X", "-A", "-t", *login, "-c", query],
        env=os.environ | {"PGPASSWORD": server.password},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key, made by the openssl command."""
    cert, key = folder / "server.crt", folder / "server.key"
    words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    words += ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(
        [find_program("openssl", "openssl"), "req", "-x509", *words], check=True, capture_output=True
    )
    key.chmod(0o644)  # for whichever user a peer runs as; it lives as long as the run
    return cert, key


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def _shown(text: str, place: Place, folder: Path, port: int) -> str:
    """The configuration without secrets, and without what is another one on each run."""
    for found, shown in (
        (place.server.password, "..."),
        (str(folder), "FOLDER"),
        (str(place.folder), "FOLDER"),
        (str(port), "PORT"),
        (str(place.server.port), "SERVER"),
    ):
        text = text.replace(found, shown)
    return text
