"""Make an authority, and certificates that it signs, with the command `openssl`.

python certificates.py FOLDER NAME=HOST...      (python certificates.py certs server=10.0.0.5 client=10.0.0.9)

Keep `ca.key` secret: with it, anybody can pretend to be any machine.
"""

import ipaddress
import subprocess
import sys
from pathlib import Path

NEW = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "365"]


def make_authority(folder: Path) -> None:
    """Write `ca.pem`, which everybody may have, and `ca.key`."""
    _openssl(folder, *NEW, "-subj", "/CN=our own authority", "-keyout", "ca.key", "-out", "ca.pem")


def make_certificate(folder: Path, name: str, host: str) -> None:
    """Write `NAME.pem` and `NAME.key`, for the machine that is reached as `host`: a name or an address."""
    try:
        alternative = f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        alternative = f"DNS:{host}"
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", f"subjectAltName={alternative}"]
    _openssl(folder, *NEW, "-subj", f"/CN={name}", *signed, "-keyout", f"{name}.key", "-out", f"{name}.pem")


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    make_authority(folder)
    for pair in sys.argv[2:]:
        name, _, host = pair.partition("=")
        make_certificate(folder, name, host)
        print(f"{folder / name}.pem and .key, for {host}")


if __name__ == "__main__":
    main()
