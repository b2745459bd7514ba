"""More certificates of the test CA: other names, revoked ones, folders as Kubernetes mounts a secret."""

import os
import subprocess
from pathlib import Path

from servers import Certificates

_CA = """[ca]
default_ca = it
[it]
database = index.txt
crlnumber = crlnumber
default_md = sha256
default_crl_days = 2
"""


def openssl(folder: Path, *words: str) -> None:
    """Run the openssl command there."""
    subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)


def issue(folder: Path, certificates: Certificates, subject: str, names: str) -> tuple[Path, Path]:
    """A certificate and its key, in ``folder``, signed by the test CA."""
    cert, key = folder / "tls.crt", folder / "tls.key"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    (folder / "ext").write_text(f"subjectAltName={names}\n")
    openssl(folder, "req", "-new", *curve, "-subj", f"/CN={subject}", "-keyout", str(key), "-out", "csr")
    signing = ["-CA", str(certificates.ca), "-CAkey", str(certificates.ca.with_suffix(".key"))]
    dates = ["-CAcreateserial", "-CAserial", str(folder / "serial"), "-days", "1", "-extfile", "ext"]
    openssl(folder, "x509", "-req", "-in", "csr", *signing, *dates, "-out", str(cert))
    return cert, key


def revocation_list(folder: Path, certificates: Certificates, *revoked: Path) -> Path:
    """A list of revoked certificates, signed by the test CA."""
    (folder / "ca.cnf").write_text(_CA)
    (folder / "index.txt").write_text("")
    (folder / "crlnumber").write_text("01\n")
    ca = ["-config", "ca.cnf", "-cert", str(certificates.ca)]
    ca += ["-keyfile", str(certificates.ca.with_suffix(".key"))]
    for cert in revoked:
        openssl(folder, "ca", *ca, "-revoke", str(cert))
    openssl(folder, "ca", *ca, "-gencrl", "-out", "crl.pem")
    return folder / "crl.pem"


class Mounted:
    """A secret as Kubernetes mounts it: its files are links through ``..data``, which is exchanged."""

    def __init__(self, folder: Path, first: tuple[Path, Path]) -> None:
        self.folder = folder
        self._count = 0
        self.exchange(first)
        for name in ("tls.crt", "tls.key"):
            (folder / name).symlink_to(f"..data/{name}")
        self.pair = folder / "tls.crt", folder / "tls.key"

    def exchange(self, pair: tuple[Path, Path]) -> None:
        """Have other files in their places from one moment to the next."""
        self._count += 1
        home = self.folder / f"..{self._count}"
        home.mkdir()
        for source, name in zip(pair, ("tls.crt", "tls.key"), strict=True):
            (home / name).write_bytes(source.read_bytes())
        (self.folder / "..next").symlink_to(home.name)
        os.replace(self.folder / "..next", self.folder / "..data")
