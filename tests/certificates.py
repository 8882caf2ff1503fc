"""A certificate authority for one test, and a server's certificate, made with openssl."""

import subprocess
from pathlib import Path

from tests.waiting import DEADLINE


def make_certificates(folder: Path, host: str = "IP:127.0.0.1") -> None:
    """Write `ca.pem`, and `server.pem` with `server.key`, which is valid for `host` alone."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=DEADLINE)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=CA", "-days", "2")
    openssl("req", *new_key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=server")
    (folder / "names").write_text(f"subjectAltName={host}\n")
    signed_by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2")
    openssl("x509", "-req", "-in", "server.csr", *signed_by, "-out", "server.pem")
    folder.chmod(0o755)
    (folder / "server.key").chmod(0o644)  # the servers give up being root
