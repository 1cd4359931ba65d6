"""`tides boinc`: the key that signs project addresses, kept off every server. Asks no service."""

import os
from pathlib import Path
from typing import Annotated

import typer

from services.cli.client import Failed

boinc = typer.Typer(no_args_is_help=True, help="Keys and signatures of the BOINC account manager; offline.")


@boinc.command("keygen")
def generate_key(
    out: Annotated[Path, typer.Option(help="New file for the private key; keep it off every server.")],
) -> None:
    """Make a signing key and print its public text, which every client pins: it must stay the same for ever."""
    from libs.boinc.signing import SigningKey

    key = SigningKey.generate()
    try:
        _write_new(out, key.to_pem())
    except FileExistsError:
        raise Failed(f"--out: {out} exists and is never overwritten; name another file") from None
    except OSError as error:
        raise Failed(f"--out: {out}: {error.strerror}; name a file in a folder that you can write") from None
    print(key.public.text, end="")


@boinc.command("sign")
def sign_url(
    url: Annotated[str, typer.Argument(help="The project's master URL, as it calls itself.")],
    key: Annotated[Path, typer.Option(help="The private key's file.")],
) -> None:
    """Print the signature block of a project's master URL."""
    from libs.boinc.account import canonical_url
    from libs.boinc.signing import SigningKey

    try:
        canonical = canonical_url(url)
    except ValueError as error:
        raise Failed(f"URL: the address {error}; give the project's master URL") from None
    if canonical != url:
        raise Failed(f"URL: clients compare every character; give it as {canonical}")
    try:
        signer = SigningKey.from_pem(key.read_bytes())
    except OSError as error:
        raise Failed(f"--key: {key}: {error.strerror}; name the file that keygen wrote") from None
    except ValueError as error:
        raise Failed(f"--key: {key} {error}; name the file that keygen wrote") from None
    print(signer.sign(url), end="")


def _write_new(path: Path, content: bytes) -> None:
    """A file of its owner alone, whole or not there. Raises FileExistsError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise
