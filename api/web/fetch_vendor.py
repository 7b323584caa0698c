"""Bring vendor/ to what its manifest names: `python -m api.web.fetch_vendor`, for who maintains it.

The packages come from npm, by `npm pack` and whatever registry it is set to; a package that is not the one
whose SHA-512 the manifest records is refused. Nothing here runs in the market: vendor/ ships.
"""

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent / "vendor"
MANIFEST = HERE / "manifest.json"
NPM_SECONDS_MAX = 120


def sha256(content: bytes) -> str:
    """Return the SHA-256 of a file's content, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    """Fetch every package of the manifest; raises SystemExit where one is not what is recorded."""
    for package in json.loads(MANIFEST.read_text()):
        name = f"{package['name']}@{package['version']}"
        with TemporaryDirectory() as folder:
            command = ["npm", "pack", "--silent", "--pack-destination", folder, name]
            subprocess.run(command, check=True, timeout=NPM_SECONDS_MAX)
            (archive,) = Path(folder).iterdir()
            found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
            if found != package["integrity"]:
                sys.exit(f"{name}: expected {package['integrity']}, found {found}")
            with tarfile.open(archive) as members:
                for file, digest in package["files"].items():
                    member = members.extractfile(f"package/{file}")
                    content = b"" if member is None else member.read()
                    if sha256(content) != digest:
                        sys.exit(f"{name}/{file}: expected {digest}, found {sha256(content)}")
                    target = HERE / package["name"] / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content)
        print(f"{name}: {len(package['files'])} files")


if __name__ == "__main__":
    main()
