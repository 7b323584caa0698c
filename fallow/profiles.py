"""Where a user's servers and keys are kept: one file of mode 0600 under the user's configuration folder.

What a flag says comes first, then a profile that was named; else the environment, if it says anything of
either; else the profile `default`. A stored key is sent to the server that it was stored with and to no
other.
"""

import os
import re
from pathlib import Path

import msgspec
from msgspec import Struct

DEFAULT_PROFILE = "default"
PROFILES_MAX = 64
FILE_BYTES_MAX = 65_536

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class Profile(Struct, frozen=True):
    """A server and a key for it."""

    server: str
    key: str

    def __repr__(self) -> str:
        return f"<Profile {self.server}>"


def profiles_path() -> Path:
    """Return where the profiles are."""
    folder = os.environ.get("XDG_CONFIG_HOME")
    return (Path(folder) if folder else Path.home() / ".config") / "fallow" / "profiles.json"


def load_profiles() -> dict[str, Profile]:
    """Read all profiles; raises ValueError for a file that others may read, or that is not ours."""
    path = profiles_path()
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ValueError(f"{path} holds keys and others may read it; chmod 600 it")
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if len(raw) > FILE_BYTES_MAX:
        raise ValueError(f"{path}: expected at most {FILE_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(raw, type=dict[str, Profile])
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: {error}") from None


def save_profile(name: str, profile: Profile) -> Path:
    """Store a profile under a name; raises ValueError for a bad name or too many."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"profile {name!r}: expected 1 to 64 letters, digits, dots, dashes, underscores")
    found = load_profiles() | {name: profile}
    if len(found) > PROFILES_MAX:
        raise ValueError(f"expected at most {PROFILES_MAX} profiles")
    path = profiles_path()
    try:
        _replace(path, msgspec.json.format(msgspec.json.encode(found)))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    return path


def resolve(server: str | None, key: str | None, name: str | None) -> tuple[str | None, str | None]:
    """Return the server and key to use, None for neither said; raises ValueError for a profile not there."""
    name = name or os.environ.get("FALLOW_PROFILE")
    said_server, said_key = os.environ.get("FALLOW_URL") or None, os.environ.get("FALLOW_KEY") or None
    if name is None and (said_server or said_key):
        return server or said_server, key or said_key
    profiles = load_profiles()
    if name is not None and name not in profiles:
        raise ValueError(f"no profile {name!r}; `fallow login --profile {name}` makes it")
    profile = profiles.get(name or DEFAULT_PROFILE)
    if profile is None:
        return server, key
    server = server or profile.server
    if key is None and server.rstrip("/") == profile.server:
        key = profile.key
    return server, key


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
